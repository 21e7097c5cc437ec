"""What TOFU (arXiv:2401.06121) brings, by its own names. All of it lives in the text track, as other papers use it: the
metrics in `shared.text.aggregate` and `shared.metrics.text`, the losses in `shared.text.losses`."""

# Section 3 of the paper -> key of `shared.text.protocol.METHODS`.
BASELINES = {
    "Gradient Ascent": "ga",
    "Gradient Difference": "gd",
    "KL Minimization": "kl",
    "Preference Optimization": "po",
}
