"""One training step of a DeepSeek-V3 model in PyTorch on the CPU, timed, in every way that is worth trying.

Two implementations of the same step (forward with Multi-Token Prediction, backward, clipping, AdamW):
  transformers  Hugging Face's DeepseekV3ForCausalLM; its layers also make the MTP modules, which it lacks
  fused         written for speed: fused projections, flash attention, grouped GEMMs over sorted tokens
each with BF16 autocast over FP32 weights and with BF16 weights, eager and compiled by inductor. BF16 weights without
an FP32 master copy are less than fathom keeps; they are tried because they may be faster. Router biases are not
updated. The batch is random and the same at every step.

Prints one JSON object on stdout and a line per variant on stderr.

    python torch_train.py --config config.json --sequences 16 --length 256 --steps 5 --threads 2

Legend: B sequences, S tokens per sequence, T = B*S, D hidden size, H heads, E experts, K experts per token,
I width of an expert.
"""

import argparse
import gc
import json
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

MTP_WEIGHT = 0.3  # lambda of Multi-Token Prediction, DeepSeek-V3 technical report, section 4.2
CLIP_NORM = 1.0  # same section
ADAMW = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


# ---- The hand-fused model -----------------------------------------------------------------------------


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def linear(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def rotate(x, cos, sin):
    """x [B, S, heads, rope], pairs (x0, x1), (x2, x3), ...; cos, sin [S, 1, rope/2]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2).to(x.dtype)


class Attention(nn.Module):
    """Multi-head Latent Attention; the two down-projections of the input are one Linear."""

    def __init__(self, c, mode, length):
        super().__init__()
        self.mode = mode
        self.register_buffer("hidden", torch.ones(length, length, dtype=torch.bool).triu(1), persistent=False)
        self.heads, self.nope, self.rope, self.v = (
            c["num_attention_heads"], c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"],
        )
        self.q_rank, self.kv_rank = c.get("q_lora_rank") or 0, c["kv_lora_rank"]
        d, q = c["hidden_size"], self.heads * (self.nope + self.rope)
        self.down = linear(d, (self.q_rank or q) + self.kv_rank + self.rope)
        if self.q_rank:
            self.q_norm = RMSNorm(self.q_rank, 1e-6)
            self.q_up = linear(self.q_rank, q)
        self.kv_norm = RMSNorm(self.kv_rank, 1e-6)
        self.kv_up = linear(self.kv_rank, self.heads * (self.nope + self.v))
        self.out = linear(self.heads * self.v, d)

    def forward(self, x, cos, sin):
        b, s, _ = x.shape
        first = self.q_rank or self.heads * (self.nope + self.rope)
        q, c_kv, k_rope = self.down(x).split((first, self.kv_rank, self.rope), -1)
        if self.q_rank:
            q = self.q_up(self.q_norm(q))
        q_nope, q_rope = q.view(b, s, self.heads, -1).split((self.nope, self.rope), -1)
        k_nope, v = self.kv_up(self.kv_norm(c_kv)).view(b, s, self.heads, -1).split((self.nope, self.v), -1)
        q = torch.cat((q_nope, rotate(q_rope, cos, sin)), -1)
        k_rope = rotate(k_rope.unsqueeze(2), cos, sin).expand(-1, -1, self.heads, -1)
        k = torch.cat((k_nope, k_rope), -1)
        o = self.attend(*(t.transpose(1, 2) for t in (q, k, v)))
        return self.out(o.transpose(1, 2)[..., : self.v].reshape(b, s, -1))

    def attend(self, q, k, v):
        """q, k [B, H, S, nope + rope], v [B, H, S, v] -> [B, H, S, v or more]."""
        if self.mode == "matmul":
            scores = (q @ k.mT).float() * q.shape[-1] ** -0.5
            return scores.masked_fill(self.hidden, -torch.inf).softmax(-1).to(v.dtype) @ v
        # The flash kernel wants equal head sizes: zero columns cost less than the unfused path.
        v = F.pad(v, (0, q.shape[-1] - self.v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def swiglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


class FeedForward(nn.Module):
    def __init__(self, hidden, intermediate):
        super().__init__()
        self.gate_up = linear(hidden, 2 * intermediate)
        self.down = linear(intermediate, hidden)

    def forward(self, x):
        return self.down(swiglu(self.gate_up(x)))


class Gather(torch.autograd.Function):
    """x [T, D] -> rows [R, D] by slot [T, K]: rows[slot[t, k]] = x[t], other rows are zero."""

    @staticmethod
    def forward(ctx, x, slot, rows):
        ctx.save_for_backward(slot)
        out = x.new_zeros(rows, x.shape[1])
        return out.index_copy_(0, slot.flatten(), x.repeat_interleave(slot.shape[1], 0))

    @staticmethod
    def backward(ctx, dy):
        (slot,) = ctx.saved_tensors
        return dy[slot.flatten()].view(*slot.shape, -1).sum(1), None, None


class Combine(torch.autograd.Function):
    """y [R, D], slot and weights [T, K] -> sum over k of weights[t, k] * y[slot[t, k]] [T, D]."""

    @staticmethod
    def forward(ctx, y, slot, weights):
        picked = y[slot.flatten()].view(*slot.shape, -1)
        ctx.save_for_backward(picked, slot, weights)
        ctx.rows = y.shape[0]
        return torch.bmm(weights.to(y.dtype).unsqueeze(1), picked).squeeze(1)

    @staticmethod
    def backward(ctx, d):
        picked, slot, weights = ctx.saved_tensors
        d_weights = torch.bmm(picked, d.unsqueeze(2)).squeeze(2).to(weights.dtype)
        spread = (weights.to(d.dtype).unsqueeze(2) * d.unsqueeze(1)).flatten(0, 1)
        dy = d.new_zeros(ctx.rows, d.shape[1]).index_copy_(0, slot.flatten(), spread)
        return dy, None, d_weights


# Rows of an expert are padded to a multiple of this. oneDNN generates code for every new matrix size, which costs
# more than a millisecond; with all sizes possible that is most of the step, with few sizes they are soon cached.
EXPERT_PADDING = 128


class Moe(nn.Module):
    """DeepSeekMoE: tokens sorted by expert, two grouped GEMMs."""

    def __init__(self, c, experts):
        super().__init__()
        d, i, e = c["hidden_size"], c["moe_intermediate_size"], c["n_routed_experts"]
        self.padded, self.experts, self.k = experts == "padded", e, c["num_experts_per_tok"]
        self.groups, self.top_groups = c.get("n_group") or 1, c.get("topk_group") or 1
        self.normalize, self.scale = c.get("norm_topk_prob", True), c.get("routed_scaling_factor", 1.0)
        self.gate = nn.Parameter(torch.empty(e, d))
        self.register_buffer("bias", torch.zeros(e))
        self.gate_up = nn.Parameter(torch.empty(e, d, 2 * i))
        self.down = nn.Parameter(torch.empty(e, i, d))
        shared = c.get("n_shared_experts") or 0
        self.shared = FeedForward(d, i * shared) if shared else None

    def route(self, x):
        """x [T, D] -> ids [T, K], weights f32 [T, K]."""
        with torch.autocast("cpu", enabled=False):
            scores = F.linear(x.float(), self.gate.float()).sigmoid()
        choice = scores.detach() + self.bias
        if self.groups > 1:
            grouped = choice.view(-1, self.groups, self.experts // self.groups)
            best = grouped.topk(2, -1)[0].sum(-1).topk(self.top_groups, -1)[1]
            out = torch.ones_like(grouped[..., 0], dtype=torch.bool).scatter(1, best, False)
            choice = grouped.masked_fill(out.unsqueeze(-1), -torch.inf).flatten(1)
        ids = choice.topk(self.k, -1)[1]
        weights = scores.gather(1, ids)
        if self.normalize:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return ids, weights * self.scale

    def plan(self, ids):
        """ids [T, K] -> slot [T, K]: row of each choice, and the end of each expert's rows [E]."""
        flat = ids.flatten()
        sizes = counts = torch.bincount(flat, minlength=self.experts)
        if self.padded:
            sizes = (counts + EXPERT_PADDING - 1) // EXPERT_PADDING * EXPERT_PADDING
        ends = sizes.cumsum(0)
        order = flat.argsort(stable=True)
        shift = (ends - sizes) - (counts.cumsum(0) - counts)
        rows = torch.arange(flat.numel()) + shift[flat[order]]
        return torch.empty_like(order).scatter_(0, order, rows).view(ids.shape), ends.int()

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        ids, weights = self.route(x)
        slot, ends = self.plan(ids)
        # The grouped GEMM is not under autocast.
        x16, gate_up, down = (t.to(torch.bfloat16) for t in (x, self.gate_up, self.down))
        rows = ids.numel() + (self.experts * EXPERT_PADDING if self.padded else 0)
        h = swiglu(F.grouped_mm(Gather.apply(x16, slot, rows), gate_up, offs=ends))
        y = Combine.apply(F.grouped_mm(h, down, offs=ends), slot, weights)
        return (y + self.shared(x) if self.shared else y).view(shape)


class Block(nn.Module):
    def __init__(self, c, layer, how, length):
        super().__init__()
        d, eps = c["hidden_size"], c["rms_norm_eps"]
        self.norm1, self.norm2 = RMSNorm(d, eps), RMSNorm(d, eps)
        self.attention = Attention(c, how.attention, length)
        dense = layer < c["first_k_dense_replace"]
        self.mlp = FeedForward(d, c["intermediate_size"]) if dense else Moe(c, how.experts)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class ChunkedLoss(torch.autograd.Function):
    """Mean cross-entropy of x [T, D] through weight [V, D], gradients computed chunk by chunk with the loss."""

    CHUNK = 512  # rows: a chunk of logits in FP32 then fits the cache

    @staticmethod
    def forward(ctx, x, weight, targets):
        w, total = weight.to(torch.bfloat16), 0.0
        x16 = x.to(torch.bfloat16)
        d_logits = torch.empty(x.shape[0], w.shape[0], dtype=torch.bfloat16)
        dx = torch.empty_like(x16)
        for i in range(0, x.shape[0], ChunkedLoss.CHUNK):
            rows = slice(i, i + ChunkedLoss.CHUNK)
            logits = (x16[rows] @ w.t()).float()
            target = targets[rows, None]
            log_p = logits.log_softmax(-1)
            total = total - log_p.gather(1, target).sum()
            p = log_p.exp_().scatter_add_(1, target, torch.full(target.shape, -1.0))
            d_logits[rows] = p.mul_(1 / x.shape[0])
            torch.mm(d_logits[rows], w, out=dx[rows])
        ctx.save_for_backward(dx.to(x.dtype), (d_logits.t() @ x16).to(weight.dtype))
        return total / x.shape[0]

    @staticmethod
    def backward(ctx, d):
        dx, d_weight = ctx.saved_tensors
        return dx * d.to(dx.dtype), d_weight * d.to(d_weight.dtype), None


class Head(nn.Module):
    """Logits and loss in one call; the final norm is outside."""

    def __init__(self, c):
        super().__init__()
        self.proj = linear(c["hidden_size"], c["vocab_size"])

    def forward(self, x, targets):
        return ChunkedLoss.apply(x.flatten(0, 1), self.proj.weight, targets.flatten())


class Fused(nn.Module):
    def __init__(self, c, length, how):
        super().__init__()
        d, eps, n = c["hidden_size"], c["rms_norm_eps"], c["num_hidden_layers"]
        self.depth = c.get("num_nextn_predict_layers") or 0
        self.embed = nn.Embedding(c["vocab_size"], d)
        self.blocks = nn.ModuleList(Block(c, layer, how, length) for layer in range(n))
        self.norm = RMSNorm(d, eps)
        self.head = Head(c)
        self.mtp = MtpModules(c, lambda layer: Block(c, layer, how, length), lambda: RMSNorm(d, eps))
        rope = c["qk_rope_head_dim"]
        inverse = float(c.get("rope_theta") or 10000.0) ** (-torch.arange(0, rope, 2) / rope)
        angle = torch.arange(length)[:, None, None] * inverse
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, tokens):
        """tokens [B, S + 1 + depth] -> training loss."""
        s = tokens.shape[1] - 1 - self.depth
        h = self.embed(tokens[:, :s])
        for block in self.blocks:
            h = block(h, self.cos, self.sin)
        h = self.norm(h)
        loss = self.head(h, tokens[:, 1 : s + 1])
        return loss + self.mtp(h, tokens, self.embed, lambda m, x: m(x, self.cos, self.sin), self.head)


class MtpModules(nn.Module):
    """Multi-Token Prediction around any decoder layer."""

    def __init__(self, c, block, norm):
        super().__init__()
        d, n = c["hidden_size"], c["num_hidden_layers"]
        self.depth = c.get("num_nextn_predict_layers") or 0
        self.blocks = nn.ModuleList(block(n + k) for k in range(self.depth))
        self.norms = nn.ModuleList(nn.ModuleList(norm() for _ in range(3)) for _ in range(self.depth))
        self.joins = nn.ModuleList(linear(2 * d, d) for _ in range(self.depth))

    def forward(self, h, tokens, embed, run, head):
        s, loss = h.shape[1], 0.0
        for k in range(1, self.depth + 1):
            enorm, hnorm, out_norm = self.norms[k - 1]
            h = self.joins[k - 1](torch.cat((enorm(embed(tokens[:, k : s + k])), hnorm(h)), -1))
            h = out_norm(run(self.blocks[k - 1], h))
            loss = loss + MTP_WEIGHT / self.depth * head(h, tokens[:, k + 1 : s + k + 1])
        return loss

    def compile(self):
        for block in self.blocks:
            block.compile(dynamic=False)


def compile_fused(model):
    """Layer by layer: equal layers share one compilation."""
    for block in model.blocks:
        block.compile(dynamic=False)
    model.mtp.compile()
    model.head.compile(dynamic=False)


# ---- Hugging Face's model -----------------------------------------------------------------------------


class Transformers(nn.Module):
    def __init__(self, c, experts):
        super().__init__()
        from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
        from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3RMSNorm

        config = DeepseekV3Config(**{k: v for k, v in c.items() if k != "architectures"})
        config._attn_implementation = "sdpa"
        config._experts_implementation = experts
        self.model = DeepseekV3ForCausalLM(config)
        self.mtp = MtpModules(
            c,
            lambda layer: DeepseekV3DecoderLayer(self.model.config, layer),
            lambda: DeepseekV3RMSNorm(config.hidden_size, config.rms_norm_eps),
        )
        self.depth = self.mtp.depth

    def forward(self, tokens):
        s = tokens.shape[1] - 1 - self.depth
        inner = self.model.model
        h = inner(input_ids=tokens[:, :s], use_cache=False).last_hidden_state
        loss = self.loss(h, tokens[:, 1 : s + 1])
        if self.depth == 0:
            return loss
        rope = inner.rotary_emb(h, torch.arange(s)[None])
        run = lambda layer, x: layer(x, position_embeddings=rope, attention_mask=None)  # noqa: E731
        return loss + self.mtp(h, tokens, inner.embed_tokens, run, self.loss)

    def loss(self, h, targets):
        return F.cross_entropy(self.model.lm_head(h).flatten(0, 1).float(), targets.flatten())


def compile_transformers(model):
    for layer in model.model.model.layers:
        layer.compile(dynamic=False)
    model.mtp.compile()
    model.loss = torch.compile(model.loss, dynamic=False)


# ---- Measuring ----------------------------------------------------------------------------------------


def build(c, args, variant):
    torch.manual_seed(0)
    if variant.model == "fused":
        model = Fused(c, args.length, variant)
    else:
        model = Transformers(c, variant.experts)
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=c.get("initializer_range", 0.02))
    if variant.weights == "bf16":
        model = keep_buffers(model)
    if variant.compiled:
        torch._dynamo.reset()
        (compile_fused if variant.model == "fused" else compile_transformers)(model)
    return model


def keep_buffers(model):
    """BF16 parameters; rotation tables and router biases stay FP32."""
    for p in model.parameters():
        p.data = p.data.to(torch.bfloat16)
    return model


# A variant whose third step takes so many times the best median is not measured further.
HOPELESS = 2.5


def measure(c, args, variant, best):
    """Seconds per step of one variant: two warm-up steps, then `steps` timed ones."""
    model = build(c, args, variant)
    tokens = batch(c, args)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, **ADAMW)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=variant.weights == "autocast")

    def step():
        begin = time.perf_counter()
        with autocast:
            loss = model(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - begin, loss.item()

    first, first_loss = step()
    step()
    seconds = []
    while len(seconds) < args.steps and not (seconds and seconds[0] > HOPELESS * best):
        taken, loss = step()
        seconds.append(taken)
    if not (math.isfinite(first_loss) and math.isfinite(loss)):
        raise RuntimeError(f"the loss is not finite: {first_loss}, {loss}")
    return {
        "median": statistics.median(seconds),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "steps": len(seconds),
        "firstStep": first,
        "loss": [first_loss, loss],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def batch(c, args):
    depth = c.get("num_nextn_predict_layers") or 0
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, c["vocab_size"], (args.sequences, args.length + 1 + depth), generator=generator)


class Variant(NamedTuple):
    model: str
    weights: str
    compiled: bool
    experts: str
    attention: str

    def __str__(self):
        how = "compiled" if self.compiled else "eager"
        return f"{self.model}, {self.weights}, {how}, experts {self.experts}, attention {self.attention}"


# Most promising first: the budget may not reach the last.
VARIANTS = [
    Variant("fused", "bf16", True, "padded", "flash"),
    Variant("fused", "autocast", True, "padded", "flash"),
    Variant("fused", "bf16", True, "padded", "matmul"),
    Variant("fused", "bf16", False, "padded", "flash"),
    Variant("fused", "autocast", False, "padded", "flash"),
    Variant("transformers", "bf16", False, "grouped_mm", "sdpa"),
    Variant("transformers", "autocast", False, "grouped_mm", "sdpa"),
    Variant("transformers", "autocast", False, "eager", "sdpa"),
    Variant("transformers", "bf16", True, "grouped_mm", "sdpa"),
    Variant("transformers", "autocast", True, "grouped_mm", "sdpa"),
    Variant("fused", "bf16", False, "grouped", "flash"),
]


def instruction_set():
    """What oneDNN, which multiplies PyTorch's BF16 matrices, says it uses."""
    code = "import torch; a = torch.ones(64, 64, dtype=torch.bfloat16); a @ a"
    env = {**os.environ, "ONEDNN_VERBOSE": "1"}
    try:
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120).stdout
    except subprocess.TimeoutExpired:
        return "unknown"
    found = re.search(r"isa:(.*)", out)
    return found.group(1).strip() if found else "unknown"


def selected(patterns):
    """Variants whose label matches one of the regular expressions, all by default."""
    if not patterns:
        return VARIANTS
    return [v for v in VARIANTS if any(re.search(p, str(v)) for p in patterns)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="config.json of type deepseek_v3")
    parser.add_argument("--sequences", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each variant, at least")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=180, help="seconds after which no further variant starts")
    parser.add_argument("--variant", action="append", help="regular expression; may be repeated")
    return parser.parse_args()


# glibc gives large blocks back to the kernel and pays for their page faults at every step; oneDNN keeps 1024
# generated kernels by default, fewer than the matrix sizes that the experts meet.
TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "16000000000",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "65536",
}


def tune_process():
    """Starts itself again with TUNED and without thread settings of the shell: libraries read them when loaded."""
    if all(os.environ.get(name) == value for name, value in TUNED.items()):
        return
    foreign = re.compile("OPENBLAS_|OMP_|GOMP_|KMP_|MKL_|DNNL_|ONEDNN_")
    env = {name: value for name, value in os.environ.items() if not foreign.match(name)}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**env, **TUNED})


def main():
    args = arguments()
    tune_process()
    torch.set_num_threads(args.threads)
    with open(args.config) as f:
        c = json.load(f)
    start = time.perf_counter()
    variants, skipped, failed = run_variants(c, args, start)
    if not variants:
        sys.exit(f"no variant ran: {failed}")
    best = min(variants, key=lambda name: variants[name]["median"])
    print(json.dumps({
        "torch": torch.__version__,
        "transformers": transformers_version(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": instruction_set(),
        "threads": torch.get_num_threads(),
        "sequences": args.sequences,
        "length": args.length,
        "best": best,
        "secondsPerStep": variants[best]["median"],
        "tokensPerSecond": args.sequences * args.length / variants[best]["median"],
        "variants": variants,
        "skipped": skipped,
        "failed": failed,
        "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": time.perf_counter() - start,
    }))


def run_variants(c, args, start):
    """-> results by label; labels that the budget did not reach; messages of those that this PyTorch cannot run."""
    variants, skipped, failed = {}, [], {}
    for variant in selected(args.variant):
        name = str(variant)
        if time.perf_counter() - start > args.budget:
            skipped.append(name)
            continue
        best = min((v["median"] for v in variants.values()), default=math.inf)
        try:
            variants[name] = measure(c, args, variant, best)
            outcome = f"{variants[name]['median']:.3f} s"
        except Exception as error:
            outcome = failed[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        gc.collect()
        print(f"{name}: {outcome}", file=sys.stderr, flush=True)
    return variants, skipped, failed


def transformers_version():
    import transformers

    return transformers.__version__


if __name__ == "__main__":
    main()
