"""Checkpoints of the reference codes: converted bit by bit, started from directly, and never run as code."""

import os
import pickle
import zipfile
from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, DINOv3ViTConfig, DINOv3ViTModel, ViTConfig, ViTModel

from dinomx_core import ConfigError, DataError, api
from dinomx_core.builtin.families import Hf, hf_shape
from dinomx_core.builtin.hf import build_hf
from dinomx_core.training.build import build
from tests.parity.replay import GOLDENS

TRAJECTORIES = {
    "dinov1_trajectory": "vit",
    "dinov2_centering_shared": "dinov2",
    "dinov2_sinkhorn_separate_registers": "dinov2_with_registers",
    "dinov3_gram": "dinov3_vit",
}


def state_of(name):
    tensors = load_file(GOLDENS / f"{name}.safetensors")
    return {key[5:]: tensor for key, tensor in tensors.items() if key.startswith("init/")}


def training(state):
    """As the reference codes save a training run."""
    other = {f"module.{name}": tensor + 1 for name, tensor in state.items()}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {"student": other, "teacher": state, "optimizer": optimizer, "epoch": 3, "args": Namespace(arch="vit_small")}


def chunked(state):
    """As DINOv2 saves a model that was sharded in chunks of one block."""
    blocks = {f"backbone.blocks.{n}.": f"backbone.blocks.{n}.{n}." for n in range(2)}
    return {
        "teacher": {
            next((new + k[len(old) :] for old, new in blocks.items() if k.startswith(old)), k): v
            for k, v in state.items()
        }
    }


LAYOUTS = {
    "backbone": lambda state: {k[9:]: v for k, v in state.items() if k.startswith("backbone.")},
    "training": training,
    "chunked": chunked,
    "both": lambda state: {"model": {f"{net}.{k}": v + (net == "student") for k, v in state.items() for net in ("student", "teacher")}},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "kind"), TRAJECTORIES.items())
def test_every_layout_is_converted_bit_by_bit(tmp_path, name, kind, layout):
    state = state_of(name)
    torch.save(LAYOUTS[layout](state), tmp_path / "x.pth")
    done = api.convert(tmp_path / "x.pth", tmp_path / "out", heads=2)
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert (done["type"], model.config.model_type) == (kind, kind)
    saved = model.state_dict()
    saved = {name: tensor for name, tensor in saved.items() if not name.startswith("pooler.")}
    count = len(saved)
    assert done["report"] == f"{count}/{count} tensors loaded"
    first = {"vit": "layers.0.attention", "dinov3_vit": "model.layer.0.attention"}.get(
        kind, "encoder.layer.0.attention"
    )
    found = [saved[next(key for key in saved if key.endswith(f"{first}.{letter}_proj.weight"))] for letter in "qkv"]
    assert torch.equal(torch.cat(found), state["backbone.blocks.0.attn.qkv.weight"])
    kept = sum(tensor.numel() for tensor in saved.values())
    backbone = sum(
        v.numel() for k, v in state.items() if k.startswith("backbone.") and not k.endswith(("periods", "bias_mask"))
    )
    dropped = 2 * 32 if kind == "dinov3_vit" else 0  # the keys' biases, which are none
    assert kept == backbone - dropped
    heads = {"vit": ["dino"], "dinov2": ["dino"]}.get(kind, ["dino", "ibot"]) if layout != "backbone" else []
    assert sorted(done["heads"]) == heads
    if heads:
        theirs = load_file(tmp_path / "out" / "heads.safetensors")
        old = next(k for k in state if k.endswith("head.mlp.0.weight"))
        assert torch.equal(theirs["dino.mlp.0.weight"], state[old])


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_a_converted_model_computes_what_the_reference_did(tmp_path, name):
    tensors = load_file(GOLDENS / f"{name}.safetensors")
    final = {key[14:]: tensor for key, tensor in tensors.items() if key.startswith("final_student/")}
    torch.save(final, tmp_path / "x.pth")
    api.convert(tmp_path / "x.pth", tmp_path / "out", heads=2)
    model = AutoModel.from_pretrained(tmp_path / "out", layer_norm_eps=1e-6).eval()
    pixels = tensors["crops"][0, 0] if "crops" in tensors else tensors["step0/global_crops"][:2]
    wanted = tensors["features_cls"] if "crops" in tensors else tensors["final_features/cls"]
    with torch.no_grad():
        found = model(pixels).last_hidden_state[:, 0]
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-4


def test_timm_files_and_swiglu_of_both_kinds_find_their_places(tmp_path):
    torch.manual_seed(0)
    model = ViTModel(ViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=128, image_size=32, patch_size=8, layer_norm_eps=1e-6), add_pooling_layer=False)  # fmt: skip
    theirs = timm_vit(model.state_dict())
    save_file(
        {**theirs, "head.weight": torch.zeros(10, 64), "head.bias": torch.zeros(10)}, tmp_path / "vit.safetensors"
    )
    done = api.convert(tmp_path / "vit.safetensors", tmp_path / "vit")
    assert "2 of its tensors are not used (head)" in done["report"]
    again = ViTModel.from_pretrained(tmp_path / "vit", add_pooling_layer=False).state_dict()
    assert all(torch.equal(again[key], tensor) for key, tensor in model.state_dict().items())
    config = DINOv3ViTConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=96, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu", image_size=32, patch_size=8)  # fmt: skip
    gated = DINOv3ViTModel(config).eval()
    with torch.no_grad():
        for parameter in gated.parameters():
            parameter.normal_(std=0.3)
    for number, file in enumerate((dinov3_swiglu(gated.state_dict()), dinov3_timm(gated.state_dict()))):
        save_file({key: tensor.contiguous() for key, tensor in file.items()}, tmp_path / f"{number}.safetensors")
        api.convert(tmp_path / f"{number}.safetensors", tmp_path / f"v3-{number}")
        opened = DINOv3ViTModel.from_pretrained(tmp_path / f"v3-{number}").state_dict()
        assert all(
            torch.equal(opened[key], tensor) for key, tensor in gated.state_dict().items() if "mask_token" not in key
        ), number


def timm_vit(state):
    """transformers' names -> timm's, without a position of the class token."""
    result = {"cls_token": state["embeddings.cls_token"], "pos_embed": state["embeddings.position_embeddings"]}
    result |= {
        f"patch_embed.proj.{leaf}": state[f"embeddings.patch_embeddings.projection.{leaf}"]
        for leaf in ("weight", "bias")
    }
    result |= {f"norm.{leaf}": state[f"layernorm.{leaf}"] for leaf in ("weight", "bias")}
    for n in range(2):
        at = f"layers.{n}."
        for leaf in ("weight", "bias"):
            qkv = [state[f"{at}attention.{letter}_proj.{leaf}"] for letter in "qkv"]
            result[f"blocks.{n}.attn.qkv.{leaf}"] = torch.cat(qkv)
            for theirs, ours in (("norm1", "layernorm_before"), ("norm2", "layernorm_after"), ("attn.proj", "attention.o_proj"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):  # fmt: skip
                result[f"blocks.{n}.{theirs}.{leaf}"] = state[f"{at}{ours}.{leaf}"]
    return result


def dinov3_shared(state):
    at = "model.layer.0."
    result = {"cls_token": state["embeddings.cls_token"]}
    result |= {f"patch_embed.proj.{leaf}": state[f"embeddings.patch_embeddings.{leaf}"] for leaf in ("weight", "bias")}
    for leaf in ("weight", "bias"):
        result[f"norm.{leaf}"] = state[f"norm.{leaf}"]
        for theirs, ours in (("norm1", "norm1"), ("norm2", "norm2"), ("attn.proj", "attention.o_proj")):
            result[f"blocks.0.{theirs}.{leaf}"] = state[f"{at}{ours}.{leaf}"]
    result["blocks.0.attn.qkv.weight"] = torch.cat([state[f"{at}attention.{letter}_proj.weight"] for letter in "qkv"])
    return result, at


def dinov3_swiglu(state):
    """transformers' names -> the reference's."""
    result, at = dinov3_shared(state)
    result |= {"storage_tokens": state["embeddings.register_tokens"], "mask_token": torch.zeros(1, 64)}
    zero = torch.zeros(64)
    result["blocks.0.attn.qkv.bias"] = torch.cat(
        [state[f"{at}attention.q_proj.bias"], zero, state[f"{at}attention.v_proj.bias"]]
    )
    result["rope_embed.periods"] = torch.ones(16)
    for leaf in ("weight", "bias"):
        for theirs, ours in (("w1", "gate_proj"), ("w2", "up_proj"), ("w3", "down_proj")):
            result[f"blocks.0.mlp.{theirs}.{leaf}"] = state[f"{at}mlp.{ours}.{leaf}"]
    for n in (1, 2):
        result[f"blocks.0.ls{n}.gamma"] = state[f"{at}layer_scale{n}.lambda1"]
    return result


def dinov3_timm(state):
    """transformers' names -> timm's, which has no mask token."""
    result, at = dinov3_shared(state)
    result["reg_token"] = state["embeddings.register_tokens"]
    for letter in "qv":
        result[f"blocks.0.attn.{letter}_bias"] = state[f"{at}attention.{letter}_proj.bias"]
    for leaf in ("weight", "bias"):
        for theirs, ours in (("fc1_g", "gate_proj"), ("fc1_x", "up_proj"), ("fc2", "down_proj")):
            result[f"blocks.0.mlp.{theirs}.{leaf}"] = state[f"{at}mlp.{ours}.{leaf}"]
    for n in (1, 2):
        result[f"blocks.0.gamma_{n}"] = state[f"{at}layer_scale{n}.lambda1"]
    return result


def test_dinov2_swiglu_is_split_into_gate_and_value(tmp_path):
    state = {k: v for k, v in state_of("dinov2_centering_shared").items() if "mlp.fc" not in k}
    for n in range(2):
        torch.manual_seed(n)
        at = f"backbone.blocks.{n}.mlp."
        state |= {f"{at}w12.weight": torch.randn(176, 32), f"{at}w12.bias": torch.randn(176)}
        state |= {f"{at}w3.weight": torch.randn(32, 88), f"{at}w3.bias": torch.randn(32)}
    torch.save(state, tmp_path / "x.pth")
    api.convert(tmp_path / "x.pth", tmp_path / "out", heads=2)
    saved = AutoModel.from_pretrained(tmp_path / "out").state_dict()
    gate, up = (saved[f"encoder.layer.1.mlp.{name}_proj.weight"] for name in ("gate", "up"))
    assert torch.equal(torch.cat([gate, up]), state["backbone.blocks.1.mlp.w12.weight"])


def test_dinov3_without_registers_and_modules_wrapped_for_sharding_are_converted(tmp_path):
    state = {k: v for k, v in state_of("dinov3_gram").items() if "storage_tokens" not in k}
    wrapped = {k.replace("backbone.", "backbone._fsdp_wrapped_module."): v for k, v in state.items()}
    torch.save({"teacher": wrapped}, tmp_path / "x.pth")
    assert api.convert(tmp_path / "x.pth", tmp_path / "out")["report"] == "41/41 tensors loaded"
    assert AutoModel.from_pretrained(tmp_path / "out").config.num_register_tokens == 0


def test_timms_packed_swiglu_is_split_too(tmp_path):
    state = {k: v for k, v in state_of("dinov2_centering_shared").items() if "mlp.fc" not in k}
    for n in range(2):
        at = f"backbone.blocks.{n}.mlp."
        state |= {f"{at}fc1.weight": torch.randn(176, 32), f"{at}fc1.bias": torch.randn(176)}
        state |= {f"{at}fc2.weight": torch.randn(32, 88), f"{at}fc2.bias": torch.randn(32)}
    torch.save(state, tmp_path / "x.pth")
    api.convert(tmp_path / "x.pth", tmp_path / "out", heads=2)
    saved = AutoModel.from_pretrained(tmp_path / "out").state_dict()
    assert torch.equal(saved["encoder.layer.0.mlp.gate_proj.weight"], state["backbone.blocks.0.mlp.fc1.weight"][:88])


def test_training_starts_from_a_checkpoint_file_with_its_heads(toy, tmp_path, image_folder):
    state = state_of("dinov2_sinkhorn_separate_registers")
    torch.save(training(state), tmp_path / "x.pth")
    api.convert(tmp_path / "x.pth", tmp_path / "converted", heads=2)
    for weights in ("x.pth", "converted"):
        config = toy(
            data={"name": "image-folder", "path": str(image_folder), "split": None},
            augmentation={"mean": [0.5], "std": [0.5]},
            head={"dino": {"prototypes": 96, "hidden": 64, "bottleneck": 32, "train_magnitude": True}},
            loss={"ibot": {}},
        )
        config["head"]["ibot"] = {"prototypes": 81, "hidden": 56, "bottleneck": 24}
        config["masking"] = {"name": "blocks"}
        config["backbone"] = {"name": "dinov2-registers", "weights": str(tmp_path / weights), "heads": 2}
        parts = build(api.plan(config))
        assert parts.start.report == (
            "44/44 tensors loaded; head.dino: loaded; head.ibot: fresh, the weights' has 80 prototypes of 24 features"
        )
        ours = parts.student.state_dict()
        assert torch.equal(ours["heads.dino.last_layer.weight_v"], state["dino_head.last_layer.weight_v"])
        assert torch.equal(ours["backbone.model.embeddings.register_tokens"], state["backbone.register_tokens"])
        theirs = parts.teacher.network.state_dict()
        assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_other_channels_of_a_checkpoint_are_refused_or_spread(tmp_path):
    state = state_of("dinov1_trajectory")
    torch.save(state, tmp_path / "x.pth")
    options = Hf(weights=str(tmp_path / "x.pth"), heads=2)
    with pytest.raises(DataError, match="made for 3 channels, the data have 1"):
        hf_shape(options, 1, 16)
    options = Hf(weights=str(tmp_path / "x.pth"), heads=2, other_channels="average")
    backbone = build_hf(options, hf_shape(options, 1, 16), 16)
    backbone.warm_start()
    grey = torch.rand(2, 1, 16, 16)
    three = Hf(weights=str(tmp_path / "x.pth"), heads=2)
    colour = build_hf(three, hf_shape(three, 3, 16), 16)
    colour.warm_start()
    with torch.no_grad():
        torch.testing.assert_close(backbone(grey).cls, colour(grey.expand(-1, 3, -1, -1)).cls, rtol=1e-4, atol=1e-5)


class Evil:
    """Runs a command where it is unpickled as code."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_a_pickle_is_never_run(tmp_path):
    state = state_of("dinov1_trajectory")
    torch.save({"teacher": state, "args": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match="cannot be read as weights alone"):
        api.convert(tmp_path / "evil.pth", tmp_path / "out", heads=2)
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()
    with zipfile.ZipFile(tmp_path / "bare.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(DataError, match="no network in it"):
        api.convert(tmp_path / "bare.pth", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def truncated(path):
    path.write_bytes(path.read_bytes()[:-2000])


def other_layout(path):
    torch.save({"conv1.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(3)}, path)


def lacks(path):
    state = state_of("dinov2_centering_shared")
    del state["backbone.blocks.1.norm2.weight"]
    torch.save(state, path)


def empty(path):
    torch.save({"epoch": 3}, path)


def own_norms(path):
    torch.save({**state_of("dinov3_gram"), "backbone.cls_norm.weight": torch.ones(32)}, path)


def cyclic(path):
    table = {"epoch": 1}
    table["model"] = table
    torch.save(table, path)


def flat(path):
    torch.save({"cls_token": torch.zeros(1, 1, 4), "patch_embed.proj.weight": torch.zeros(4, 4)}, path)


def blockless(path):
    torch.save({k: v for k, v in state_of("dinov3_gram").items() if ".blocks." not in k}, path)


def double(path):
    torch.save({k: v.double() for k, v in state_of("dinov2_centering_shared").items()}, path)


def not_finite(path):
    state = state_of("dinov2_centering_shared")
    state["backbone.norm.weight"] = state["backbone.norm.weight"] * float("nan")
    torch.save(state, path)


def corrupt(path):
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (cyclic, "no network in it; it holds: epoch"),
        (flat, "its tensors have shapes that no known model has"),
        (blockless, "its tensors have shapes that no known model has"),
        (double, "is torch.float64, which float32 would round"),
        (not_finite, "norm.weight holds numbers that are not finite"),
        (corrupt, "is no whole torch checkpoint of today's format"),
        (truncated, "is no whole torch checkpoint of today's format"),
        (other_layout, "not the layout of DINO, DINOv2, DINOv3 or timm; it holds conv1.weight, fc.bias"),
        (lacks, "tensors fit the backbone; not so encoder.layer.1.norm2.weight"),
        (empty, "no network in it; it holds: epoch"),
        (own_norms, "class token and patches have norms of their own"),
    ],
)
def test_broken_checkpoints_are_refused_and_leave_nothing(tmp_path, spoil, expected):
    torch.save(state_of("dinov2_centering_shared"), tmp_path / "x.pth")
    spoil(tmp_path / "x.pth")
    with pytest.raises(DataError) as caught:
        api.convert(tmp_path / "x.pth", tmp_path / "out", heads=2)
    assert expected in str(caught.value) and str(tmp_path / "x.pth") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_convert_refuses(tmp_path):
    torch.save(state_of("dinov1_trajectory"), tmp_path / "x.pth")
    with pytest.raises(DataError, match=r"how many attention heads share its width of 32; say so \(--heads\)"):
        api.convert(tmp_path / "x.pth", tmp_path / "out")
    with pytest.raises(DataError, match="is no checkpoint file"):
        api.convert(tmp_path / "nothing.pth", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ConfigError, match="holds something already"):
        api.convert(tmp_path / "x.pth", tmp_path / "out", heads=2)


def test_a_plan_refuses_a_checkpoint_of_another_width_or_patch(toy, tmp_path):
    torch.save(state_of("dinov2_centering_shared"), tmp_path / "x.pth")
    for options, expected in (({"width": 64}, "backbone.width: 64, but the weights have 32"), ({"patch_size": 8}, "backbone.patch_size: 8, but the weights have 4")):  # fmt: skip
        config = toy()
        config["backbone"] = {
            "name": "dinov2",
            "weights": str(tmp_path / "x.pth"),
            "heads": 2,
            "other_channels": "average",
            **options,
        }
        with pytest.raises(ConfigError) as caught:
            api.plan(config)
        assert expected in str(caught.value)
