"""Importer of plain ViT checkpoints in the layouts of timm and DeiT, torchvision and Hugging Face."""

from __future__ import annotations

import re
from dataclasses import dataclass

from common.errors import InputError
from frontend.checkpoint import State, prefix_of
from frontend.options import Imported, Options, model_name
from frontend.transformer import Rules, TransformerReader, translator
from pysim.files import validate
from pysim.model import Model
from pysim.spec import ModelSpec

TASK = "classify"
"""Name of the task where none is given."""


@dataclass(frozen=True)
class Layout:
    """Names that a library gives to the parameters of a ViT.

    Attributes:
        name: of the library.
        anchor: end of the name of the patch embedding's weight, which tells the layout.
        rules: its names and timm's, without the prefix that wrappers add.
        beside: prefixes of backbones next to which the head stands.
        norm_eps: epsilon of its LayerNorms unless a configuration says otherwise.
        unused: tensors that do not take part in inference.
    """

    name: str
    anchor: str
    rules: Rules
    beside: tuple[str, ...] = ()
    norm_eps: float = 1e-6
    unused: tuple[str, ...] = ()


_HF = "encoder.layer.{i}."
_TV = "encoder.layers.encoder_layer_{i}."

_TIMM_RULES: Rules = (
    *((f"blocks.{{i}}.attn.{name}_proj", f"blocks.{{i}}.attn.{name}") for name in "qkv"),
    *((f"blocks.{{i}}.attn.to_{name}", f"blocks.{{i}}.attn.{name}") for name in "qkv"),
    ("register_tokens", "reg_token"),
)
_HF_RULES: Rules = (
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    (_HF + "attention.attention.query", "blocks.{i}.attn.q"),
    (_HF + "attention.attention.key", "blocks.{i}.attn.k"),
    (_HF + "attention.attention.value", "blocks.{i}.attn.v"),
    (_HF + "attention.output.dense", "blocks.{i}.attn.proj"),
    ("layernorm", "norm"),
    ("classifier", "head"),
)
"""Names that all networks of Hugging Face have in common."""

LAYOUTS = (
    Layout(
        "DeiT-III",
        "blocks.0.gamma_1",
        (
            *_TIMM_RULES,
            ("blocks.{i}.gamma_1", "blocks.{i}.ls1.gamma"),
            ("blocks.{i}.gamma_2", "blocks.{i}.ls2.gamma"),
        ),
    ),
    Layout("timm", "patch_embed.proj.weight", _TIMM_RULES, unused=("mask_token",)),
    Layout(
        "Hugging Face DINOv2",
        "encoder.layer.0.layer_scale1.lambda1",
        (
            *_HF_RULES,
            (_HF + "norm1", "blocks.{i}.norm1"),
            (_HF + "norm2", "blocks.{i}.norm2"),
            (_HF + "layer_scale1.lambda1", "blocks.{i}.ls1.gamma"),
            (_HF + "layer_scale2.lambda1", "blocks.{i}.ls2.gamma"),
            (_HF + "mlp.fc1", "blocks.{i}.mlp.fc1"),
            (_HF + "mlp.fc2", "blocks.{i}.mlp.fc2"),
        ),
        beside=("dinov2.", "dinov2_with_registers."),
        unused=("embeddings.mask_token",),
    ),
    Layout(
        "Hugging Face",
        "embeddings.patch_embeddings.projection.weight",
        (
            *_HF_RULES,
            (_HF + "layernorm_before", "blocks.{i}.norm1"),
            (_HF + "layernorm_after", "blocks.{i}.norm2"),
            (_HF + "intermediate.dense", "blocks.{i}.mlp.fc1"),
            (_HF + "output.dense", "blocks.{i}.mlp.fc2"),
            ("embeddings.distillation_token", "dist_token"),
            ("cls_classifier", "head"),
            ("distillation_classifier", "head_dist"),
        ),
        beside=("vit.", "deit."),
        norm_eps=1e-12,
        unused=("embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias"),
    ),
    Layout(
        "torchvision",
        "conv_proj.weight",
        (
            ("conv_proj", "patch_embed.proj"),
            ("class_token", "cls_token"),
            ("encoder.pos_embedding", "pos_embed"),
            (_TV + "ln_1", "blocks.{i}.norm1"),
            (_TV + "ln_2", "blocks.{i}.norm2"),
            (_TV + "self_attention.in_proj_weight", "blocks.{i}.attn.qkv.weight"),
            (_TV + "self_attention.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
            (_TV + "self_attention.out_proj", "blocks.{i}.attn.proj"),
            (_TV + "mlp.0", "blocks.{i}.mlp.fc1"),
            (_TV + "mlp.linear_1", "blocks.{i}.mlp.fc1"),
            (_TV + "mlp.3", "blocks.{i}.mlp.fc2"),
            (_TV + "mlp.linear_2", "blocks.{i}.mlp.fc2"),
            ("encoder.ln", "norm"),
            ("heads.head", "head"),
        ),
    ),
)

REASONS = {
    r"\.(q_norm|k_norm|q_layernorm|k_layernorm)\.": "norms of queries and keys, which the accelerator does not have",
    r"rel_pos|relative_position": "relative positions, which the accelerator does not have",
    r"norm_pre|pre_layrnorm|pre_norm": "a norm before the first block, which the accelerator does not have",
    r"attn_pool": "a head on tokens pooled by attention, which heads here do not have",
    r"pre_logits": "a hidden layer before the classifier, which heads here do not have",
    r"mlp\.(w12|w3|fc1_g|fc1_x|norm)|gate_proj": "an MLP with gates, which the accelerator does not have",
    r"attn\.(q_bias|v_bias)": "biases of queries and values alone (BEiT), with relative positions",
    r"rope|rotary": "rotary positions, which the accelerator does not have",
}


def import_vit(state: State, options: Options) -> Imported:
    """Read a plain ViT.

    Args:
        state: its tensors.
        options: heads are needed; the image is taken for square unless its size is given.

    Raises:
        InputError: an unknown layout; missing, extra, misshapen or non-finite tensors, naming them.
    """
    layout, prefix = find_layout(state)
    beside = next(filter(prefix.endswith, layout.beside), "")
    root = prefix.removesuffix(beside)
    to_ours = translator(layout.rules, to_ours=True)
    to_theirs = translator(layout.rules, to_ours=False)

    def shorten(key: str) -> str:
        return to_ours(key.removeprefix(prefix) if key.startswith(prefix) else key.removeprefix(root))

    def lengthen(key: str) -> str:
        return (root if key.startswith(("head.", "head_dist.")) else prefix) + to_theirs(key)

    state = state.renamed(shorten, lengthen)
    state.waive(layout.unused)
    _refuse_known(state)
    return _read(state, options, layout)


def find_layout(state: State) -> tuple[Layout, str]:
    """The layout of a checkpoint and the prefix that wrappers gave it."""
    for layout in LAYOUTS:
        prefix = prefix_of(state, layout.anchor)
        if prefix is not None:
            return layout, prefix
    anchors = ", ".join(f"{layout.anchor} ({layout.name})" for layout in LAYOUTS)
    keys = ", ".join(list(state.entries)[:4])
    raise InputError(
        f"{state.source}: unknown layout, starting with {keys or 'no tensor at all'}",
        hint=f"a ViT is recognised by one of {anchors}",
    )


def _refuse_known(state: State) -> None:
    """Refuse what is known not to fit before anything is said about shapes, which it changes."""
    pattern = "|".join(REASONS)
    known = {key: entry for key, entry in state.entries.items() if re.search(pattern, state.file_name(key))}
    State(state.source, known, state.file_name).finish(REASONS)


def _read(state: State, options: Options, layout: Layout) -> Imported:
    reader = TransformerReader(state, options)
    image_size = reader.image_size(guess_square=True)
    mlp_dim = state.shape("blocks.0.mlp.fc1.weight", 2)[0]
    remarks = [reader.read_embedding()]
    for layer in range(reader.depth):
        reader.read_attention(layer)
        reader.read_mlp(layer, mlp_dim)
    if reader.has_layer_scale:
        remarks.append("folded into the layers in front of the residual sums: layer scale")
    task, heads = (options.tasks or (TASK,))[0], {}
    if options.tasks is not None and len(options.tasks) > 1:
        raise InputError(f"{state.source}: --tasks names {len(options.tasks)} tasks, a plain ViT has one")
    if "head.weight" in state:
        classes = state.shape("head.weight", 2)[0]
        reader.read_linear(f"heads.{task}", "head", (classes, reader.dim))
        norms = [norm for norm in ("norm", "fc_norm") if f"{norm}.weight" in state]
        for norm in norms:
            reader.read_linear(f"heads.{task}.{norm}", norm, (reader.dim,))
        kind, reads = "cls-linear", "the class token"
        if "head_dist.weight" in state:
            reader.read_linear(f"heads.{task}.dist", "head_dist", (classes, reader.dim))
            kind, reads = (
                "distilled-linear",
                "the class token, averaged with another on the distillation token",
            )
        elif "fc_norm" in norms or not reader.prefix:
            kind, reads = "mean-linear", "the mean of the patch tokens"
        heads[task] = {
            "kind": kind,
            "out_channels": classes,
            "norm": "norm" in norms,
            "fc_norm": "fc_norm" in norms,
        }
        remarks.append(
            f"head: {'final norm and ' if norms else ''}classifier of {classes} classes on {reads}"
        )
    else:
        # Without a head there is no place for the norm in front of it: the tokens of the last block are the output.
        dropped = state.waive(
            [f"{norm}.{part}" for norm in ("norm", "fc_norm") for part in ("weight", "bias")]
        )
        remarks.append(
            "no classification head"
            + (": the final norm is left to whoever reads the tokens" if dropped else "")
        )
    state.finish(REASONS)
    spec = validate(
        ModelSpec,
        {
            "name": model_name(state.source),
            "image_size": image_size,
            **reader.geometry,
            "mlp_dim": mlp_dim,
            "norm_eps": options.norm_eps or layout.norm_eps,
            "tasks": [task],
            "task_heads": heads,
        },
        state.source,
    )
    return Imported(Model(spec, reader.weights), remarks=tuple(remarks))
