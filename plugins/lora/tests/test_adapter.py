"""The adapter's folder of an export, on models of other families than DINOv2."""

import peft
import pytest
import torch
import transformers

from dinomx_core import api


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("vit", {}),
        ("vit", {"dora": True}),
        ("beit", {"full_blocks": [-1]}),
        ("dinov3_vit", {}),
        ("siglip_vision_model", {}),
    ],
)
def test_it_opens_with_peft_on_the_start_model_and_computes_what_the_merged_export_does(
    toy, model_folder, family, options
):
    start = model_folder(family, channels=1)
    lora = {"rank": 2, "roles": ["query", "value", "mlp"], **options}
    config = toy(strategies=["lora"], strategy={"lora": lora}, run={"steps": 2}, optimizer={"lr": 0.05})
    config["backbone"] = {"name": "hf", "weights": str(start)}
    for table, size in (("globals", 32), ("locals", 16)):
        config["augmentation"][table]["size"] = size
    export = api.run(config).export
    plain, other, merged = (transformers.AutoModel.from_pretrained(f).eval() for f in (start, start, export))
    adapted = peft.PeftModel.from_pretrained(other, export / "adapter").eval()
    pixels = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before, found, wanted = (m(pixel_values=pixels).last_hidden_state for m in (plain, adapted, merged))
    error = (found - wanted).abs().max()
    assert error < 1e-5 * wanted.abs().max()
    assert (before - wanted).abs().max() > 100 * error
