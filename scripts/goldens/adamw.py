"""Golden of AdamW: four steps of torch.optim.AdamW in FP64 on seeded gradients: test/goldens/backend/adamw.json.

    python scripts/goldens/adamw.py        (needs torch)
"""

import json
import pathlib

import torch

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "goldens" / "backend" / "adamw.json"
SETTINGS = {"lr": 3e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1}

torch.manual_seed(5)
parameter = torch.nn.Parameter(torch.randn(12, dtype=torch.float64))
gradients = torch.randn(4, 12, dtype=torch.float64) * torch.logspace(-6, 2, 12, dtype=torch.float64)
gradients[:, 3] = 0
golden = {"settings": SETTINGS, "start": parameter.tolist(), "gradients": gradients.tolist(), "parameters": []}
optimizer = torch.optim.AdamW([parameter], **SETTINGS)
for gradient in gradients:
    parameter.grad = gradient.clone()
    optimizer.step()
    golden["parameters"].append(parameter.tolist())
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
