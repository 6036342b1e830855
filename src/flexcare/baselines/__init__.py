"""COMPARED WITH WHAT? Other models that answer the very samples that FlexCare answers.

`named.BASELINES` learn from a store by themselves; `networks.NETWORKS` are trained as FlexCare is.
"""
