"""Tokens to experts and back as one writes it in PyTorch distributed: all_to_all_single over gloo, BF16, one copy of a token for
each of its experts. Started by mpirun with MASTER_ADDR and GLOO_SOCKET_IFNAME; rank 0 prints the median seconds of the slowest rank."""
import json
import os
import statistics
import sys
import time

import torch
import torch.distributed as dist

what = json.loads(sys.argv[1])
rank, size = int(os.environ["OMPI_COMM_WORLD_RANK"]), int(os.environ["OMPI_COMM_WORLD_SIZE"])
os.environ.setdefault("MASTER_PORT", "29577")
torch.set_num_threads(1)
dist.init_process_group("gloo", rank=rank, world_size=size)

tokens, hidden, top_k, experts = (what[k] for k in ("tokens", "hidden", "topK", "experts"))
generator = torch.Generator().manual_seed(rank)
ids = torch.stack([torch.randperm(experts, generator=generator)[:top_k] for _ in range(tokens)])
x = torch.randn(tokens, hidden, generator=generator).to(torch.bfloat16)
order = torch.argsort(ids.flatten(), stable=True)
to_rank = ids.flatten()[order] // (experts // size)
sent = torch.bincount(to_rank, minlength=size)
received = torch.empty_like(sent)
dist.all_to_all_single(received, sent)
sent, received = sent.tolist(), received.tolist()


def exchange(rows, ours, theirs):
    """Rows of BF16 as bytes, which gloo takes."""
    out = torch.empty(sum(theirs), hidden, dtype=torch.bfloat16)
    dist.all_to_all_single(out.view(torch.uint8), rows.contiguous().view(torch.uint8), theirs, ours)
    return out


def step():
    rows = exchange(x[order // top_k], sent, received)
    back = exchange(rows, received, sent)
    y = torch.zeros(tokens, hidden)
    y.index_add_(0, order // top_k, back.float() / top_k)
    return y.to(torch.bfloat16)


step()
seconds = []
for _ in range(what["rounds"]):
    dist.barrier()
    started = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - started)
slowest = torch.tensor(seconds)
dist.all_reduce(slowest, dist.ReduceOp.MAX)
if rank == 0:
    print("@@torch " + json.dumps({"seconds": statistics.median(slowest.tolist()), "version": torch.__version__}), flush=True)
dist.destroy_process_group()
