"""The networks by name: FlexCare, and those it is compared with, trained by the same loop."""

from flexcare.baselines.networks.early_fusion import EarlyFusion
from flexcare.baselines.networks.gru_d import GruD
from flexcare.models.flexcare import FlexCare
from flexcare.models.network import Network

NETWORKS: dict[str, type[Network]] = {
    network.name: network for network in (FlexCare, GruD, EarlyFusion)
}
