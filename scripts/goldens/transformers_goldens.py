"""Golden checkpoints from Hugging Face transformers: tiny random DeepSeek models with what they compute.

    python scripts/goldens/transformers_goldens.py [--out test/goldens/transformers] [variant ...]

needs torch, transformers >= 5.23 and safetensors. Every variant is a folder that holds

    config.json, model*.safetensors   as transformers writes them (or, for `v3-fp8`, as DeepSeek publishes them)
    golden.safetensors                input_ids i64 [B, T], logits f32 [B, T, V], grad.<parameter name> f32 (all
                                      of them in v3-fp32 and v2-fp32, else a choice, to keep the files small)
    golden.json                       loss and how it was made

Logits, loss and gradients come from an FP32 forward and backward pass over the stored weights, whatever type
they are stored in; `logits_bf16` (BF16 variants) is what the BF16 model itself gives. Names in `grad.*` are
those of the parameters in transformers 5: `mlp.experts.gate_up_proj` [E, 2I, D] and `mlp.experts.down_proj`
[E, D, I] hold all experts of a layer. Widths are small and some are no multiple of anything, weights are wide
(std 0.15, norms around 1 by 0.2) so that a misplaced head, row or scale shows.
"""

import argparse
import copy
import json
import math
import re
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM, LlamaConfig
from transformers.modeling_layers import MtpModel
from transformers.models.llama.modeling_llama import LlamaAttention

SIZES = dict(
    vocab_size=80, hidden_size=48, intermediate_size=40, moe_intermediate_size=16, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=4, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3,
    kv_lora_rank=20, q_lora_rank=24, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=10,
    first_k_dense_replace=1, max_position_embeddings=128, bos_token_id=0, eos_token_id=1,
)
V3 = dict(n_group=4, topk_group=2, routed_scaling_factor=2.5, num_nextn_predict_layers=0)
V2 = dict(n_group=1, topk_group=1, topk_method="greedy", routed_scaling_factor=1.0)
YARN = dict(rope_type="yarn", type="yarn", factor=8.0, original_max_position_embeddings=16, beta_fast=32, beta_slow=1)
ONE_MOE = dict(num_hidden_layers=1, first_k_dense_replace=0)
ONE_DENSE = dict(num_hidden_layers=1, first_k_dense_replace=1)

# Which gradients are kept: attention, norms and gate reach through everything that a variant changes.
SOME = r"self_attn|norm|mlp\.gate\."
ALL = r""

# name -> (generation, config fields, options)
VARIANTS = {
    "v3-fp32": (3, {}, dict(gradients=ALL)),
    "v3-yarn": (3, dict(rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0)), {}),
    # mscale and mscale_all_dim that do not cancel: cos and sin are scaled too.
    "v3-yarn-mscale": (
        3,
        dict(ONE_DENSE, q_lora_rank=None, rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=0.5)),
        {},
    ),
    # Neither mscale: cos and sin are scaled by 0.1 ln(factor) + 1. An epsilon that the latents' norms do not share.
    "v3-yarn-plain": (3, dict(ONE_DENSE, rms_norm_eps=1e-3, rope_parameters=dict(YARN)), {}),
    "v3-one-group": (
        3,
        dict(ONE_MOE, n_group=1, topk_group=1, n_routed_experts=5, n_shared_experts=2, norm_topk_prob=False, q_lora_rank=None,
             tie_word_embeddings=True),
        dict(gradients=SOME + "|embed_tokens"),
    ),
    "v3-rope-halves": (3, dict(ONE_DENSE, rope_interleave=False), {}),
    "v3-bf16": (3, {}, dict(dtype=torch.bfloat16, shards="60KB")),
    # One block border inside every matrix; DeepSeek's own config.json fields and per-expert names.
    "v3-fp8": (
        3,
        dict(hidden_size=136, intermediate_size=144, moe_intermediate_size=24, n_routed_experts=4, n_group=2, topk_group=1,
             num_experts_per_tok=2, vocab_size=64),
        dict(dtype=torch.bfloat16, fp8=True, gradients=r"norm|mlp\.gate\."),
    ),
    "v3-mtp": (
        3,
        dict(ONE_DENSE, num_nextn_predict_layers=1),
        dict(mtp=True, gradients=SOME + r"|embed_tokens|lm_head|eh_proj|layers\.1\."),
    ),
    # Llama's attention in place of MLA: all of a head turned, and the rotary part only, in neighbouring pairs.
    "v3-gqa": (
        3,
        dict(ONE_MOE, num_key_value_heads=2, qk_nope_head_dim=0, v_head_dim=8, rope_interleave=False),
        dict(attention="gqa"),
    ),
    "v3-mqa-partial": (
        3,
        dict(ONE_DENSE, num_key_value_heads=1, v_head_dim=20, rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=1.0)),
        dict(attention="mqa"),
    ),
    "v2-fp32": (2, dict(q_lora_rank=None), dict(gradients=ALL)),
    "v2-groups": (
        2,
        dict(ONE_MOE, n_group=4, topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=4.0, n_shared_experts=2,
             rope_parameters=dict(YARN, mscale=0.707, mscale_all_dim=0.707)),
        {},
    ),
    "v2-bf16": (2, dict(q_lora_rank=None), dict(dtype=torch.bfloat16)),
}


def build(generation, fields, llama_attention=False):
    """Model in FP32 with wide random weights."""
    sizes = dict(SIZES, **(V3 if generation == 3 else V2)) | fields
    config_class, model_class = {
        3: (DeepseekV3Config, DeepseekV3ForCausalLM),
        2: (DeepseekV2Config, DeepseekV2ForCausalLM),
    }[generation]
    config = config_class(**sizes, attn_implementation="eager", experts_implementation="eager")
    model = model_class(config).float().eval()
    if llama_attention:
        use_llama_attention(model)
    randomise(model)
    return model


class PaddedRotary(torch.nn.Module):
    """The model's rotary embedding for heads that are turned in part: angle 0 for the pairs of the other part."""

    def __init__(self, inner, still):
        super().__init__()
        self.inner, self.still = inner, still

    def forward(self, *args, **kwargs):
        cos, sin = (part.chunk(2, -1)[0] for part in self.inner(*args, **kwargs))
        pad = (self.still // 2, 0)
        cos, sin = torch.nn.functional.pad(cos, pad, value=1.0), torch.nn.functional.pad(sin, pad)
        return torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)


def use_llama_attention(model):
    """Llama's own attention module in every layer, its softmax scale times YaRN's mscale^2 as in DeepSeek's."""
    c = model.config
    llama = LlamaConfig(hidden_size=c.hidden_size, num_attention_heads=c.num_attention_heads,
                        num_key_value_heads=c.num_key_value_heads, head_dim=c.qk_nope_head_dim + c.qk_rope_head_dim,
                        attn_implementation="eager")
    assert c.v_head_dim == llama.head_dim
    for index, layer in enumerate(model.model.layers):
        mscale = layer.self_attn.scaling * layer.self_attn.qk_head_dim**0.5
        layer.self_attn = LlamaAttention(llama, index)
        layer.self_attn.scaling *= mscale
    model.model.rotary_emb = PaddedRotary(model.model.rotary_emb, c.qk_nope_head_dim)


def head_order(config):
    """Row of Llama's head, whose pairs are i and i + d/2, for each row of a head [still | turned] as DeepSeek has it."""
    still, turned = config.qk_nope_head_dim, config.qk_rope_head_dim
    half = (still + turned) // 2
    pairs = torch.arange(half) + torch.tensor([[0], [half]])  # [2, d/2]
    moving = pairs[:, still // 2:]
    return torch.cat((pairs[:, : still // 2].flatten(), (moving.T if config.rope_interleave else moving).flatten()))


def reorder_heads(config, state):
    """Rows of q_proj and k_proj (weights or gradients) from Llama's order to DeepSeek's."""
    order = head_order(config)
    for name in [name for name in state if re.search(r"self_attn\.[qk]_proj", name)]:
        heads = state[name].unflatten(0, (-1, len(order)))
        state[name] = heads[:, order].flatten(0, 1).contiguous()
    return state


def save_llama_attention(folder, model, options):
    """Our own config.json: no such model exists in transformers."""
    save_file(reorder_heads(model.config, per_expert(model.state_dict())), folder / "model.safetensors", metadata={"format": "pt"})
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("q_lora_rank", "kv_lora_rank", "head_dim")}
    config["attention_kind"] = options["attention"]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def randomise(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.2 * torch.randn_like(parameter))
            elif name.endswith("gate.weight"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.15 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.1 * torch.randn_like(buffer))


def round_to(model, dtype):
    """Parameters that `dtype` can hold exactly, kept in FP32 (the bias of the gate stays FP32 on disk too)."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype).float())


def build_mtp(model):
    """One MTP module beside `model`, whose embedding and head it shares, with random weights of its own."""
    mtp = MtpModel(model, 1).float().eval()
    mtp.layers.requires_grad_(True)
    randomise(mtp.layers)
    return mtp


def forward(model, input_ids):
    """FP32 logits [B, T, V], the loss of next-token prediction, gradients."""
    out = model(input_ids=input_ids, labels=input_ids, use_cache=False)
    return out.logits, out.loss


def forward_mtp(model, mtp, input_ids):
    """Logits [B, T-1, V] of the MTP module: row i sees h_i and token i+1 and predicts token i+2 [TR 2.2]."""
    hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state
    positions = torch.arange(1, input_ids.shape[1]).unsqueeze(0)
    after = mtp.forward_layer(0, hidden[:, :-1], positions, None, input_ids=input_ids[:, 1:])
    logits = model.lm_head(after)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 2:].flatten())
    return logits, loss


def published_mtp_name(name, layer):
    """DeepSeek's name of a parameter of the MTP module; its layer follows the decoder's last."""
    name = name.removeprefix("layers.0.").removeprefix("mtp_block.")
    name = re.sub(r"^post_norm\.", "shared_head.norm.", name)
    return f"model.layers.{layer}.{name}"


def publish_mtp(mtp, layer):
    """State of the MTP module under DeepSeek's names, without the shared embedding and head."""
    state = mtp.state_dict()
    return {published_mtp_name(name, layer): state[name] for name in state if name.startswith("layers.0.")}


def per_expert(state):
    """Fused experts split into the published `experts.N.{gate,up,down}_proj.weight`."""
    out = {}
    for name, value in state.items():
        if name.endswith("experts.gate_up_proj"):
            for e, both in enumerate(value):
                gate, up = both.chunk(2)
                out[name.replace("gate_up_proj", f"{e}.gate_proj.weight")] = gate.contiguous()
                out[name.replace("gate_up_proj", f"{e}.up_proj.weight")] = up.contiguous()
        elif name.endswith("experts.down_proj"):
            for e, down in enumerate(value):
                out[name.replace("down_proj", f"{e}.down_proj.weight")] = down.contiguous()
        else:
            out[name] = value
    return out


BLOCK = 128


def quantise(weight):
    """E4M3 codes and one f32 scale per 128x128 block, the last ones cut off at the border; and their product."""
    rows, columns = weight.shape
    codes = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    scales = torch.empty(math.ceil(rows / BLOCK), math.ceil(columns / BLOCK))
    back = torch.empty_like(weight)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = (slice(i * BLOCK, (i + 1) * BLOCK), slice(j * BLOCK, (j + 1) * BLOCK))
            scales[i, j] = weight[at].abs().max() / torch.finfo(torch.float8_e4m3fn).max
            codes[at] = (weight[at] / scales[i, j]).to(torch.float8_e4m3fn)
            back[at] = codes[at].float() * scales[i, j]
    return codes, scales, back


def is_quantised(name):
    """Every Linear of attention and MLP; embedding, head, norms and gate stay BF16 [TR 3.3.1]."""
    return name.endswith("_proj.weight") or name.endswith("kv_a_proj_with_mqa.weight") or ".experts.gate_up" in name \
        or ".experts.down" in name


def quantise_model(model):
    """Replaces weights by their dequantised values; returns the published state."""
    state = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not is_quantised(name):
                continue
            matrices = per_expert({name: parameter})
            for part, matrix in matrices.items():
                codes, scales, back = quantise(matrix)
                matrix_view(parameter, name, part).copy_(back)
                state[part] = codes
                state[part + "_scale_inv"] = scales
    return state


def matrix_view(parameter, name, part):
    """The slice of a fused parameter that `part` names."""
    if part == name:
        return parameter
    expert = int(part.split("experts.")[1].split(".")[0])
    half = parameter.shape[1] // 2
    return {
        "gate": parameter[expert, :half], "up": parameter[expert, half:], "down": parameter[expert],
    }[part.split(".")[-2].removesuffix("_proj")]


def published_config(config):
    """config.json with the fields of DeepSeek-V3's own, which transformers 4 writes."""
    keys = list(SIZES) + ["n_group", "topk_group", "routed_scaling_factor", "num_nextn_predict_layers", "norm_topk_prob",
                          "hidden_act", "initializer_range", "rms_norm_eps", "tie_word_embeddings", "attention_bias",
                          "attention_dropout", "use_cache"]
    return {key: getattr(config, key) for key in keys} | dict(
        architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", moe_layer_freq=1, ep_size=1,
        scoring_func="sigmoid", topk_method="noaux_tc", rope_theta=10000, rope_scaling=None, torch_dtype="bfloat16",
        transformers_version="4.33.1",
        quantization_config=dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[BLOCK, BLOCK]),
    )


def save_fp8(folder, model, quantised):
    state = {k: v for k, v in per_expert(model.state_dict()).items() if k not in quantised}
    state = {k: v if k.endswith("e_score_correction_bias") else v.to(torch.bfloat16) for k, v in state.items()}
    save_file(state | quantised, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(published_config(model.config), indent=2) + "\n")


def save_checkpoint(folder, model, options, mtp):
    dtype = options.get("dtype", torch.float32)
    stored = type(model)(model.config).to(dtype)
    stored.load_state_dict(model.state_dict())
    for (name, target), source in zip(stored.named_buffers(), model.buffers()):
        if name.endswith("e_score_correction_bias"):
            target.data = source.clone()  # f32 in every checkpoint
    stored.save_pretrained(folder, max_shard_size=options.get("shards", "5GB"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    if mtp is not None:
        file = folder / "model.safetensors"
        extra = per_expert(publish_mtp(mtp, model.config.num_hidden_layers))
        save_file(load_file(file) | extra, file, metadata={"format": "pt"})
    return stored


def gradients(model, mtp):
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, p in mtp.named_parameters() if mtp is not None else []:
        if name.startswith("layers.0.") and p.grad is not None:
            grads[published_mtp_name(name, model.config.num_hidden_layers)] = p.grad
    return grads


def check_stable(model, input_ids, logits):
    """No token may sit so near a tie between experts that rounding could choose another one."""
    wide = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        far = (wide(input_ids=input_ids, use_cache=False).logits - logits).abs().max() / logits.abs().max()
    assert far < 2e-5, f"FP32 and FP64 differ by {far}: choose another seed"


def make(name, out, seed):
    generation, fields, options = VARIANTS[name]
    torch.manual_seed(seed)
    model = build(generation, fields, "attention" in options)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mtp = build_mtp(model) if options.get("mtp") else None
    quantised = None
    if "dtype" in options:
        round_to(model, options["dtype"])
    if options.get("fp8"):
        quantised = quantise_model(model)
    # Odd lengths: nothing is a multiple of a tile.
    input_ids = torch.randint(2, model.config.vocab_size, (2, 29 if "rope_parameters" in fields else 19))
    logits, loss = forward(model, input_ids)
    tensors = {"input_ids": input_ids, "logits": logits.detach()}
    notes = {"transformers": transformers.__version__, "torch": torch.__version__, "loss": loss.item()}
    total = loss
    if mtp is not None:
        tensors["mtp.logits"], mtp_loss = forward_mtp(model, mtp, input_ids)
        notes |= {"mtp.loss": mtp_loss.item(), "mtp.lambda": 0.3, "gradients": "of loss + 0.3 * mtp.loss"}
        total = loss + 0.3 * mtp_loss
    total.backward()
    check_stable(model, input_ids, logits)
    if options.get("fp8"):
        save_fp8(folder, model, quantised)
    elif "attention" in options:
        save_llama_attention(folder, model, options)
    else:
        stored = save_checkpoint(folder, model, options, mtp)
        if "dtype" in options:
            with torch.no_grad():
                tensors["logits_bf16"] = stored.eval()(input_ids=input_ids, use_cache=False).logits.float()
    kept = options.get("gradients", SOME)
    grads = gradients(model, mtp)
    if "attention" in options:
        grads = reorder_heads(model.config, grads)
    tensors |= {f"grad.{k}": v for k, v in grads.items() if re.search(kept, k)}
    tensors = {k: v.detach().contiguous() for k, v in tensors.items()}
    save_file(tensors, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(notes, indent=2) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name}: {size / 1000:.0f} kB, loss {notes['loss']:.4f}, largest logit {logits.abs().max():.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("test/goldens/transformers"))
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name in options.variants or VARIANTS:
        make(name, options.out, options.seed)


if __name__ == "__main__":
    main()
