"""M3ViT's convolutional task decoders in torch, run on the tokens that the backbone (or the accelerator) returns.

A decoder normalises the patch tokens, lays them out as an image and enlarges it sixteen times: four times a 3x3
convolution with batch norm and ReLU, each followed by a bilinear enlargement by two; before the last enlargement a
1x1 convolution makes the channels of the task.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load

from common.errors import InputError
from common.reading import require_file
from frontend.options import DECODERS
from pysim.extras import missing
from pysim.files import Tensors
from pysim.spec import ModelSpec

try:
    import torch
    from torch import Tensor, nn
    from torch.nn import functional
except ModuleNotFoundError as error:
    raise missing(error.name, "running a decoder") from None

STAGES = 4
AUXILIARY = "output_level_"
"""Outputs of earlier stages, which only training reads."""


class Decoder(nn.Module):
    """The decoder of one task; parameters have M3ViT's names.

    Attributes:
        grid: rows and columns of patches.
        image_size: height and width of the result.
        prefix: tokens in front of the patch tokens.
    """

    def __init__(self, spec: ModelSpec, width: int, channels: int) -> None:
        super().__init__()
        self.grid, self.image_size, self.prefix = spec.grid, spec.image_size, spec.prefix_tokens
        self.norm = nn.LayerNorm(spec.dim, eps=spec.norm_eps)
        for stage in range(STAGES):
            inputs = width if stage else spec.dim
            self.add_module(f"conv_{stage}", nn.Conv2d(inputs, width, 3, padding=1))
            self.add_module(f"syncbn_fc_{stage}", nn.BatchNorm2d(width))
        self.add_module(f"conv_{STAGES}", nn.Conv2d(width, channels, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (images, tokens, dim), prefix tokens first, to (images, channels, H, W)."""
        x = self.norm(tokens[:, self.prefix :]).transpose(1, 2).unflatten(2, self.grid)
        for stage in range(STAGES):
            x = functional.relu(
                self.get_submodule(f"syncbn_fc_{stage}")(self.get_submodule(f"conv_{stage}")(x))
            )
            if stage == STAGES - 1:
                x = self.get_submodule(f"conv_{STAGES}")(x)
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        if tuple(x.shape[2:]) == self.image_size:
            return x
        return functional.interpolate(x, size=self.image_size, mode="bilinear", align_corners=False)


def read_decoders(folder: Path) -> Tensors:
    """Tensors in the `decoders.safetensors` of a Model folder, by `<task>.<layer>.<parameter>`; none without one."""
    path = folder / f"{DECODERS}.safetensors"
    if not path.exists():
        return {}
    require_file(path)
    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file: {error}", hint="import the checkpoint again"
        ) from None


def load_decoder(folder: Path, spec: ModelSpec, task: str) -> Decoder:
    """The decoder of a task, ready to run.

    Args:
        folder: Model folder with a `decoders.safetensors`.
        spec: shape of its Model.
        task: name of the task.

    Raises:
        InputError: no decoder for the task, or not one of the kind that `Decoder` is.
    """
    tensors, path = read_decoders(folder), folder / f"{DECODERS}.safetensors"
    own = {
        key.removeprefix(f"{task}."): tensor for key, tensor in tensors.items() if key.startswith(f"{task}.")
    }
    if not own:
        tasks = ", ".join(sorted({key.split(".")[0] for key in tensors})) or "none"
        raise InputError(f"{folder}: no decoder for task {task!r}", hint=f"decoders there: {tasks}")
    state = {name: torch.from_numpy(tensor) for name, tensor in own.items() if not name.startswith(AUXILIARY)}
    last = f"conv_{STAGES}.weight"
    if last not in state or state[last].ndim != 4:
        raise InputError(
            f"{path}: tensor {task}.{last} is missing: not M3ViT's decoder of five convolutions",
            hint="other decoders are kept, but only the network that they come from can run them",
        )
    decoder = Decoder(spec, width=state[last].shape[1], channels=state[last].shape[0])
    for stage in range(STAGES):
        state[f"syncbn_fc_{stage}.num_batches_tracked"] = torch.tensor(0)
    expected = decoder.state_dict()
    for name in sorted(set(expected) | set(state)):
        found, wanted = (tuple(s[name].shape) if name in s else None for s in (state, expected))
        if found != wanted:
            raise InputError(f"{path}: tensor {task}.{name}: shape {found}, expected {wanted}")
    decoder.load_state_dict(state)
    return decoder.eval()
