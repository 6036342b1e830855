"""The networks by name: FlexCare, and those it is compared with, trained by the same loop."""

from flexcare.baselines.networks.early_fusion import EarlyFusion
from flexcare.baselines.networks.flex_moe import FlexMoE
from flexcare.baselines.networks.gru_d import GruD
from flexcare.baselines.networks.m3h import M3H
from flexcare.baselines.networks.medfuse import MedFuse
from flexcare.baselines.networks.modality_dropout import ModalityDropout
from flexcare.baselines.networks.moe_health import MoEHealth
from flexcare.models.flexcare import FlexCare
from flexcare.models.network import Network

NETWORKS: dict[str, type[Network]] = {
    network.name: network
    for network in (
        FlexCare, GruD, EarlyFusion, MedFuse, ModalityDropout, FlexMoE, MoEHealth, M3H,
    )
}  # fmt: skip
