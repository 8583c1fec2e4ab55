"""Train the demo network: a multi-task mixture-of-experts ViT on the handwritten digit scenes.

The network follows M3ViT: a pre-norm ViT whose odd blocks replace the MLP by experts that each token
chooses through the gate of the task at hand.  Its weights are those of ``model.toml`` +
``weights.safetensors``; parameter names in this file are the tensor names of the model folder.

Run it from an environment with the package, torch and scikit-learn::

    python scripts/train_digits.py --out digits

Training is seeded and repeats exactly on the same machine with the same number of threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from frontend import digits
from pysim.errors import InputError
from pysim.files import new_folder, require_new

TASKS: Final = ("digit", "segment")
OUT_CHANNELS: Final = {"digit": digits.DIGIT_CLASSES, "segment": digits.SEGMENT_CLASSES}
HEAD_KINDS: Final = {"digit": "cls-linear", "segment": "token-linear"}

DIM: Final = 48
DEPTH: Final = 4
HEADS: Final = 3
MLP_DIM: Final = 96
EXPERTS: Final = 8
EXPERT_DIM: Final = 48
TOP_K: Final = 2
NORM_EPS: Final = 1e-6
PATCHES: Final = digits.PATCHES_PER_SIDE**2

PIXEL_MEAN: Final = 0.2
PIXEL_STD: Final = 0.2
POSITION_SCALE: Final = 0.5

BATCH: Final = 48
LEARNING_RATE: Final = 3e-3
WEIGHT_DECAY: Final = 0.05
WARMUP: Final = 0.08
LABEL_SMOOTHING: Final = 0.05
BALANCE: Final = 0.01
CLIP_NORM: Final = 1.0

MODEL_FILE: Final = "model.toml"
WEIGHTS_FILE: Final = "weights.safetensors"


class Attention(nn.Module):
    """Multi-head self-attention; the rows of ``qkv`` are q, k and v, each head-major."""

    def __init__(self) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.proj = nn.Linear(DIM, DIM)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(batch, tokens, DIM)`` to the same shape."""
        batch, count, _ = tokens.shape
        split = self.qkv(tokens).view(batch, count, 3, HEADS, DIM // HEADS)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        result: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, count, DIM))
        return result


class Mlp(nn.Module):
    """The MLP of a dense block."""

    def __init__(self) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.fc1 = nn.Linear(DIM, MLP_DIM)
        self.fc2 = nn.Linear(MLP_DIM, DIM)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(batch, tokens, DIM)`` to the same shape."""
        result: Tensor = self.fc2(functional.gelu(self.fc1(tokens)))
        return result


class ExpertLinear(nn.Module):
    """One linear layer for each expert: ``weight`` is (experts, out, in)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        """Make the layers with random weights."""
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(EXPERTS, out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(EXPERTS, out_features))


class Gate(nn.Module):
    """One bias-free linear gate for each task: ``weight`` is (tasks, experts, DIM)."""

    def __init__(self) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(len(TASKS), EXPERTS, DIM) * DIM**-0.5)


class Moe(nn.Module):
    """Experts behind one gate per task.

    The scores are a softmax over all experts; the best ``TOP_K`` experts of a token count with their
    score as it is, without another normalisation.

    ``scores`` keeps the kept scores of the last call, ``(batch * tokens, EXPERTS)``, for the balance
    loss and the usage report.
    """

    def __init__(self) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.fc1 = ExpertLinear(DIM, EXPERT_DIM)
        self.fc2 = ExpertLinear(EXPERT_DIM, DIM)
        self.gate = Gate()
        self.scores = torch.zeros(0, EXPERTS)

    def forward(self, tokens: Tensor, task: int) -> Tensor:
        """Map ``(batch, tokens, DIM)`` to the same shape with the gate of one task."""
        flat = tokens.reshape(-1, DIM)
        scores = functional.linear(flat, self.gate.weight[task]).softmax(dim=-1)
        chosen = torch.zeros_like(scores).scatter(-1, scores.topk(TOP_K).indices, 1.0)
        self.scores = scores * chosen
        result = torch.zeros_like(flat)
        for expert in range(EXPERTS):
            rows = chosen[:, expert].nonzero()[:, 0]
            hidden = functional.linear(flat[rows], self.fc1.weight[expert], self.fc1.bias[expert])
            out = functional.linear(functional.gelu(hidden), self.fc2.weight[expert], self.fc2.bias[expert])
            result = result.index_add(0, rows, out * self.scores[rows, expert, None])
        return result.view_as(tokens)


class Block(nn.Module):
    """A pre-norm transformer block, with experts on odd layers."""

    def __init__(self, layer: int) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.norm1 = nn.LayerNorm(DIM, eps=NORM_EPS)
        self.attn = Attention()
        self.norm2 = nn.LayerNorm(DIM, eps=NORM_EPS)
        self.moe = Moe() if layer % 2 else None
        self.mlp = None if layer % 2 else Mlp()

    def forward(self, tokens: Tensor, task: int) -> Tensor:
        """Map ``(batch, tokens, DIM)`` to the same shape."""
        tokens = tokens + self.attn(self.norm1(tokens))
        normed = self.norm2(tokens)
        if self.moe is not None:
            change: Tensor = self.moe(normed, task)
        else:
            assert self.mlp is not None
            change = self.mlp(normed)
        return tokens + change


class Head(nn.Linear):
    """The head of one task: its own LayerNorm, then a linear layer."""

    def __init__(self, out_channels: int) -> None:
        """Make the layers with random weights."""
        super().__init__(DIM, out_channels)
        self.norm = nn.LayerNorm(DIM, eps=NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(..., DIM)`` to ``(..., out_channels)``."""
        return super().forward(self.norm(tokens))


def sine_positions() -> Tensor:
    """Waves over the rows and columns of patches, ``(64, DIM)``: a start that already knows neighbours."""
    side = torch.arange(digits.PATCHES_PER_SIDE)
    waves = DIM // 4
    angles = side[:, None] * torch.pi / digits.PATCHES_PER_SIDE * (1 + torch.arange(waves) / 2)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    return torch.cat([line[rows.flatten()], line[columns.flatten()]], dim=1) * POSITION_SCALE


class DigitsNet(nn.Module):
    """The demo network.  Row 0 of ``pos_embed`` is the whole cls token."""

    def __init__(self) -> None:
        """Make the layers with random weights."""
        super().__init__()
        self.patch_embed = nn.Conv2d(1, DIM, digits.PATCH_SIZE, stride=digits.PATCH_SIZE)
        # Start as if the pixels had zero mean and unit variance, which the weights then absorb.
        weight = self.patch_embed.weight.detach() / PIXEL_STD
        self.patch_embed.weight = nn.Parameter(weight)
        self.patch_embed.bias = nn.Parameter(-PIXEL_MEAN * weight.sum(dim=(1, 2, 3)))
        self.pos_embed = nn.Parameter(torch.cat([POSITION_SCALE * torch.randn(1, DIM), sine_positions()]))
        self.blocks = nn.ModuleList(Block(layer) for layer in range(DEPTH))
        self.heads = nn.ModuleDict({task: Head(OUT_CHANNELS[task]) for task in TASKS})

    def forward(self, images: Tensor, task: str) -> Tensor:
        """Logits of one task.

        Args:
            images: ``float32``, ``(batch, 1, 32, 32)``, pixel / 256.
            task: ``"digit"`` for logits ``(batch, 10)``, ``"segment"`` for ``(batch, 64, 11)``.
        """
        patches = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed[1:]
        tokens = torch.cat([self.pos_embed[:1].expand(len(images), 1, DIM), patches], dim=1)
        for block in self.blocks:
            tokens = block(tokens, TASKS.index(task))
        logits: Tensor = self.heads[task](tokens[:, 0] if HEAD_KINDS[task] == "cls-linear" else tokens[:, 1:])
        return logits

    def moes(self) -> dict[int, Moe]:
        """The mixture-of-experts layers, by block number."""
        found = ((layer, getattr(block, "moe", None)) for layer, block in enumerate(self.blocks))
        return {layer: moe for layer, moe in found if isinstance(moe, Moe)}


@dataclass(frozen=True)
class Batch:
    """Tensors of some scenes: ``images`` as the network reads them, and the labels of each task."""

    images: Tensor
    labels: dict[str, Tensor]


def to_batch(scenes: digits.Scenes) -> Batch:
    """Convert scenes to tensors; the network reads the pixel ``p`` as ``p / 256``."""
    return Batch(
        images=torch.from_numpy(scenes.images).float() / 256,
        labels={task: torch.from_numpy(labels) for task, labels in scenes.labels.items()},
    )


def batches(sources: digits.Sources, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch of shuffled batches, of scenes that are composed afresh; an incomplete batch is dropped."""
    whole = to_batch(digits.compose(sources, rng, jitter=1.0))
    order = torch.from_numpy(rng.permutation(len(whole.images)))
    for rows in order[: len(order) // BATCH * BATCH].view(-1, BATCH):
        yield Batch(whole.images[rows], {task: labels[rows] for task, labels in whole.labels.items()})


def balance_loss(net: DigitsNet) -> Tensor:
    """Squared coefficient of variation of the experts' importance (sum of kept scores), over all layers.

    It goes by the last call, so it treats every task on its own.
    """
    importance = torch.stack([moe.scores.sum(dim=0) for moe in net.moes().values()])
    return (importance.var(dim=1) / importance.mean(dim=1) ** 2).sum()


def task_loss(net: DigitsNet, batch: Batch, task: str) -> Tensor:
    """Cross-entropy of one task plus its balance loss."""
    logits = net(batch.images, task)
    fit = functional.cross_entropy(
        logits.flatten(0, -2), batch.labels[task].flatten(), label_smoothing=LABEL_SMOOTHING
    )
    return fit + BALANCE * balance_loss(net)


def make_optimizer(net: DigitsNet) -> torch.optim.AdamW:
    """AdamW; norms, biases, embeddings and gates are not decayed."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        is_matrix = name.endswith("weight") and parameter.ndim > 1 and "gate" not in name
        (decayed if is_matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))


def cosine(steps: int) -> Callable[[int], float]:
    """Learning rate factor by step: linear warm-up, then half a cosine down to zero."""
    warmup = max(1, round(WARMUP * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup))))

    return factor


def train(net: DigitsNet, sources: digits.Sources, epochs: int, seed: int) -> None:
    """Train in place, both tasks on each batch, and print the mean loss of every epoch."""
    rng = np.random.default_rng(seed)
    optimizer = make_optimizer(net)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(epochs * (len(sources.digits) // BATCH)))
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in batches(sources, rng):
            optimizer.zero_grad()
            parts = torch.stack([task_loss(net, batch, task) for task in TASKS])
            torch.autograd.backward(parts.sum())
            nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            losses.append(parts.detach())
        means = torch.stack(losses).mean(dim=0).tolist()
        shown = "  ".join(f"{task} {mean:.4f}" for task, mean in zip(TASKS, means, strict=True))
        print(f"epoch {epoch:3d}/{epochs}  loss: {shown}  {time.perf_counter() - start:6.1f} s", flush=True)


@torch.no_grad()
def evaluate(net: DigitsNet, scenes: Batch) -> None:
    """Print the accuracy of every task and how often each task chooses each expert."""
    for task in TASKS:
        right = net(scenes.images, task).argmax(dim=-1) == scenes.labels[task]
        print(f"held-out accuracy, {task}: {100 * right.double().mean().item():.2f} % of {right.numel()}")
        for layer, moe in net.moes().items():
            share = (moe.scores > 0).double().mean(dim=0) / TOP_K
            print(
                f"  experts in layer {layer} (%): "
                + " ".join(f"{100 * part:5.1f}" for part in share.tolist())
            )


def model_toml() -> str:
    """The description of the network that goes with the weights."""
    tasks = ", ".join(f'"{task}"' for task in TASKS)
    heads = "".join(
        f'\n[model.task_heads.{task}]\nkind = "{HEAD_KINDS[task]}"\nout_channels = {OUT_CHANNELS[task]}\n'
        for task in TASKS
    )
    return f"""[model]
name = "digits"
image_size = [{digits.IMAGE_SIZE}, {digits.IMAGE_SIZE}]
in_channels = 1
patch_size = {digits.PATCH_SIZE}
dim = {DIM}
depth = {DEPTH}
heads = {HEADS}
mlp_dim = {MLP_DIM}
qkv_bias = true
norm_eps = 1e-6
tasks = [{tasks}]

[model.moe]
layers = "odd"
experts = {EXPERTS}
hidden_dim = {EXPERT_DIM}
top_k = {TOP_K}
gate = "softmax-topk"
renormalize = false
{heads}"""


def write_model(net: DigitsNet, folder: Path) -> None:
    """Write the model folder, which must be new, in one step."""
    tensors = {name: tensor.float().contiguous() for name, tensor in net.state_dict().items()}
    with new_folder(folder) as temporary:
        (temporary / MODEL_FILE).write_text(model_toml(), encoding="utf-8")
        (temporary / WEIGHTS_FILE).write_bytes(save(tensors))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the digits demo network.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new model folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and augmentation")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the training images")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    """Train, evaluate on the held-out split, and write the model folder."""
    require_new(arguments.out)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    torch.use_deterministic_algorithms(True)
    # Filling new tensors only guards against reading uninitialised memory, and costs a tenth of the time.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010
    net = DigitsNet()
    print(f"{sum(parameter.numel() for parameter in net.parameters())} parameters")
    start = time.perf_counter()
    train(net, digits.load_sources("train"), arguments.epochs, arguments.seed)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    evaluate(net, to_batch(digits.load_scenes("heldout")))
    write_model(net, arguments.out)
    size = (arguments.out / WEIGHTS_FILE).stat().st_size
    print(f"wrote {arguments.out} ({size / 1000:.0f} kB of weights)")


def main() -> None:
    """Run the command line."""
    try:
        run(parse_arguments())
    except InputError as error:
        raise SystemExit(f"error: {error}" + (f" ({error.hint})" if error.hint else "")) from None


if __name__ == "__main__":
    main()
