"""The erasers by name: import paths, so that planning stays free of torch."""

ERASERS = {
    "esd": "shared.diffusion.erasers.esd:esd",
    "uce": "shared.diffusion.erasers.uce:uce",
    "fmn": "shared.diffusion.erasers.fmn:fmn",
    "ablation": "shared.diffusion.erasers.ablation:ablation",
    "sld": "shared.diffusion.erasers.sld:sld",
    "salun": "shared.diffusion.erasers.salun:salun",
    "erasediff": "shared.diffusion.erasers.erasediff:erasediff",
    "scissorhands": "shared.diffusion.erasers.scissorhands:scissorhands",
    "amnesia": "shared.diffusion.erasers.selective_amnesia:amnesia",
    "spm": "shared.diffusion.erasers.spm:spm",
    "seot": "shared.diffusion.erasers.seot:seot",
}

# Of class-conditional models
CLASS_ERASERS = {
    "class_relabel": "shared.diffusion.classes.erasers:class_relabel",
    "class_esd": "shared.diffusion.classes.erasers:class_esd",
}
