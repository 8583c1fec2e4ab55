"""Importer of plain ViT checkpoints in the layouts of timm and DeiT, torchvision and Hugging Face."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from common.errors import InputError
from common.fits import Fit
from frontend.checkpoint import State, listed, prefix_of
from frontend.options import Imported, Options, model_name
from frontend.pixels import IMAGENET, Normalization
from frontend.told import NORMALIZE_HINT, Told, check_facts
from frontend.transformer import REGISTERS, Rules, TransformerReader, translator
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
        anchor: end of the name of a weight that tells the layout.
        rules: its names and timm's, without the prefix that wrappers add.
        beside: prefixes of backbones next to which the head stands.
        norm_eps: epsilon of its LayerNorms unless a configuration says otherwise.
        normalization: of the images that all networks of the library were trained on, if it is one.
    """

    name: str
    anchor: str
    rules: Rules
    beside: tuple[str, ...] = ()
    norm_eps: float = 1e-6
    normalization: Normalization | None = None


_HF = "encoder.layer.{i}."
_HF5 = "layers.{i}."
_TV = "encoder.layers.encoder_layer_{i}."

_TIMM_RULES: Rules = (
    *((f"blocks.{{i}}.attn.{name}_proj", f"blocks.{{i}}.attn.{name}") for name in "qkv"),
    *((f"blocks.{{i}}.attn.to_{name}", f"blocks.{{i}}.attn.{name}") for name in "qkv"),
    ("register_tokens", "reg_token"),
)
_HF_RULES: Rules = (
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.distillation_token", "dist_token"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.mask_token", "mask_token"),
    ("layernorm", "norm"),
    ("pooler.layernorm", "fc_norm"),
    ("classifier", "head"),
    ("cls_classifier", "head"),
    ("distillation_classifier", "head_dist"),
)
"""Names that all networks of Hugging Face have in common."""


def _hf_norms(block: str) -> Rules:
    """Names of the norms and scales of ViT, DeiT and BEiT."""
    return (
        (f"{block}layernorm_before", "blocks.{i}.norm1"),
        (f"{block}layernorm_after", "blocks.{i}.norm2"),
        (f"{block}lambda_1", "blocks.{i}.ls1.gamma"),
        (f"{block}lambda_2", "blocks.{i}.ls2.gamma"),
    )


def _dino_parts(block: str) -> Rules:
    """Names of the norms, scales and MLPs of DINOv2."""
    return (
        (f"{block}norm1", "blocks.{i}.norm1"),
        (f"{block}norm2", "blocks.{i}.norm2"),
        (f"{block}layer_scale1.lambda1", "blocks.{i}.ls1.gamma"),
        (f"{block}layer_scale2.lambda1", "blocks.{i}.ls2.gamma"),
        (f"{block}mlp.fc1", "blocks.{i}.mlp.fc1"),
        (f"{block}mlp.fc2", "blocks.{i}.mlp.fc2"),
    )


def _hf4_attention(block: str) -> Rules:
    """Names of attention in transformers up to release 4, and in files that release 5 saves."""
    return (
        (f"{block}attention.attention.query", "blocks.{i}.attn.q"),
        (f"{block}attention.attention.key", "blocks.{i}.attn.k"),
        (f"{block}attention.attention.value", "blocks.{i}.attn.v"),
        (f"{block}attention.output.dense", "blocks.{i}.attn.proj"),
    )


def _hf5_attention(block: str) -> Rules:
    """Names of attention in the state dicts of release 5."""
    return (
        *((f"{block}attention.{name}_proj", f"blocks.{{i}}.attn.{name}") for name in "qkv"),
        (f"{block}attention.o_proj", "blocks.{i}.attn.proj"),
    )


_HF_BACKBONES = ("vit.", "deit.", "beit.", "data2vec_vision.", "ijepa.")
_DINO_BACKBONES = ("dinov2.", "dinov2_with_registers.")

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
    Layout("timm", "patch_embed.proj.weight", _TIMM_RULES),
    Layout(
        "Hugging Face DINOv2, release 5",
        "encoder.layer.0.attention.q_proj.weight",
        (*_HF_RULES, *_hf5_attention(_HF), *_dino_parts(_HF)),
        beside=_DINO_BACKBONES,
    ),
    Layout(
        "Hugging Face DINOv2",
        "encoder.layer.0.layer_scale1.lambda1",
        (*_HF_RULES, *_hf4_attention(_HF), *_dino_parts(_HF)),
        beside=_DINO_BACKBONES,
    ),
    Layout(
        "Hugging Face, release 5",
        "layers.0.attention.q_proj.weight",
        (
            *_HF_RULES,
            *_hf5_attention(_HF5),
            *_hf_norms(_HF5),
            (_HF5 + "mlp.fc1", "blocks.{i}.mlp.fc1"),
            (_HF5 + "mlp.fc2", "blocks.{i}.mlp.fc2"),
        ),
        beside=_HF_BACKBONES,
        norm_eps=1e-12,
    ),
    Layout(
        "Hugging Face",
        "embeddings.patch_embeddings.projection.weight",
        (
            *_HF_RULES,
            *_hf4_attention(_HF),
            *_hf_norms(_HF),
            (_HF + "intermediate.dense", "blocks.{i}.mlp.fc1"),
            (_HF + "output.dense", "blocks.{i}.mlp.fc2"),
        ),
        beside=_HF_BACKBONES,
        norm_eps=1e-12,
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
        normalization=IMAGENET,
    ),
)

REASONS = {
    r"\.(q_norm|k_norm|q_layernorm|k_layernorm)\.": "norms of queries and keys, which the accelerator does not have",
    r"rel_pos|relative_position": "relative positions, which the accelerator does not have",
    r"norm_pre|pre_layrnorm|pre_norm": "a norm before the first block, which the accelerator does not have",
    r"attn_pool|vision_model\.head\.": "a head on tokens pooled by attention, which heads here do not have",
    r"pre_logits": "a hidden layer before the classifier, which heads here do not have",
    r"mlp\.(w1|w2|w12|w3|fc1_g|fc1_x)\b|gate_proj|up_proj|weights_in": (
        "an MLP with gates, which the accelerator does not have"
    ),
    r"(attn|mlp)\.norm\.": "a norm inside of attention or the MLP, which the accelerator does not have",
    r"\.(attns|ffns)\.": "several attentions or MLPs side by side in a block, which the accelerator does not have",
    r"rope|rotary": "rotary positions, which the accelerator does not have",
    r"\.experts\.": "experts, which --kind m3vit reads",
    r"lora_|adapter": "adapters beside the weights: merge them into the weights first",
    r"decode_head|auxiliary_head|seg_head|\bfpn|\bneck": "a decoder of feature maps, which heads here do not have",
    r"text_model|text_projection|logit_scale": "a network for text beside that for images: save the latter alone",
    r"qweight|weight_scale|zero_point|absmax|_packed_params": "weights that were quantised already, expected floats",
}

_KNOWN = re.compile(
    r"(patch_embed\.proj|norm|fc_norm|head|head_dist|blocks\.\d+\.(norm[12]|attn\.(qkv|q|k|v|proj)|mlp\.fc[12]))"
    r"\.(weight|bias)|cls_token|dist_token|reg_token|pos_embed|blocks\.\d+\.(ls[12]\.gamma|attn\.[qv]_bias)"
)
"""Names of all tensors that a plain ViT may have."""

_PRETRAINING = {
    "mask token": r"mask_token",
    "pooler": r"pooler\.dense\..*",
    "decoder of the pretraining": (
        r"decoder_(embed|blocks|norm|pred|pos_embed)\b.*|decoder\.(decoder_\w+|mask_token|0)\b.*"
    ),
    "head of the pretraining": r"lm_head\..*",
}
"""Parts beside the encoder and its classifier, which inference does not run."""


def import_vit(state: State, options: Options, told: Told | None = None) -> Imported:
    """Read a plain ViT.

    Args:
        state: its tensors.
        options: heads are needed, and the normalisation but for torchvision; the image is taken for square unless its
            size is given.
        told: what the folder around the file says, and the options with what it says filled in.

    Raises:
        InputError: an unknown layout; missing, extra, misshapen or non-finite tensors, naming them; settings that the
            tensors contradict; an option that is needed.
    """
    told = told or Told(options)
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
    chosen = [f"of several networks in the file, {state.chosen} is taken"] if state.chosen else []
    remarks = (*told.remarks, *chosen, *_leave_pretraining(state))
    _refuse_unknown(state, layout)
    return _Vit(_completed(state, told), told, layout, remarks).read()


def find_layout(state: State) -> tuple[Layout, str]:
    """The layout of a checkpoint and the prefix that wrappers gave it."""
    for layout in LAYOUTS:
        prefix = prefix_of(state, layout.anchor)
        if prefix is not None:
            return layout, prefix
    State(state.source, {key: state.entries[key] for key in state.entries if _reason(key)}).finish(REASONS)
    anchors = ", ".join(f"{layout.anchor} ({layout.name})" for layout in LAYOUTS)
    keys = ", ".join(list(state.entries)[:4])
    raise InputError(
        f"{state.source}: unknown layout, starting with {keys or 'no tensor at all'}",
        hint=f"a ViT is recognised by one of {anchors}",
    )


def _reason(key: str) -> str | None:
    return next((reason for pattern, reason in REASONS.items() if re.search(pattern, key)), None)


def _leave_pretraining(state: State) -> list[str]:
    """Waive what only the pretraining reads, and say so."""
    left: dict[str, int] = {}
    for part, pattern in _PRETRAINING.items():
        left[part] = len(state.waive([key for key in state.entries if re.fullmatch(pattern, key)]))
    if any(
        key.startswith("head.last_layer.") for key in state.entries
    ):  # DINO and iBOT project features while training
        projection = [key for key in state.entries if key.startswith(("head.mlp.", "head.last_layer."))]
        left["projection of the pretraining"] = len(state.waive(projection))
    shown = ", ".join(f"{part} ({count})" for part, count in left.items() if count)
    return [f"left out, as the encoder does not read it: {shown}"] if shown else []


def _refuse_unknown(state: State, layout: Layout) -> None:
    """Refuse what is known not to fit, and what is not known, before shapes are looked at, which it changes."""
    known = State(
        state.source, {key: state.entries[key] for key in state.entries if _reason(state.file_name(key))}
    )
    known.file_name = state.file_name
    known.finish(REASONS)
    unknown = [key for key in state.left() if not _KNOWN.fullmatch(key)]
    if unknown:
        raise InputError(
            f"{state.source}: unexpected tensor{'s' if len(unknown) > 1 else ''}: "
            f"{listed(map(state.file_name, unknown))}",
            hint=f"no plain ViT has a parameter of this name; the others are named as those of {layout.name}",
        )


def _completed(state: State, told: Told) -> State:
    """The tensors, with zeros for those that the settings of a folder say are not there."""
    dim, _, patch, _ = state.shape("patch_embed.proj.weight", 4)
    zeros: dict[str, tuple[int, ...]] = {}
    there, size = "pos_embed" in state, told.options.image_size
    if told.position is False and there:
        raise InputError(f"{state.called('pos_embed')}: the configuration says that there are no positions")
    if told.position is False and size is not None:
        zeros["pos_embed"] = (1, (size[0] // patch) * (size[1] // patch), dim)
    elif not there:
        raise InputError(
            f"{state.source}: no table of positions (tensor {state.file_name('pos_embed')})",
            hint="positions that are computed, relative or rotary cannot be imported",
        )
    for check in told.checks:
        if check.fact == "biases of projections" and check.value is False:
            for key, entry in list(state.entries.items()):
                match = re.fullmatch(r"(blocks\.\d+\.(?:attn\.proj|mlp\.fc[12]))\.weight", key)
                if match is not None and entry.shape:
                    zeros[f"{match[1]}.bias"] = entry.shape[:1]
    return state.filled(zeros)


class _Vit:
    """Reads the tensors of a plain ViT, by timm's names."""

    def __init__(self, state: State, told: Told, layout: Layout, remarks: Iterable[str]) -> None:
        self.state, self.told, self.layout = state, told, layout
        self.remarks = list(remarks)
        options = told.options
        dim = state.shape("patch_embed.proj.weight", 4)[0]
        if options.heads is None and told.usual_heads is not None and told.usual_heads[0] == dim:
            options = dataclasses.replace(options, heads=told.usual_heads[1])
        if options.normalization is None:
            options = dataclasses.replace(options, normalization=layout.normalization)
        self.told = dataclasses.replace(told, options=options)
        self.reader = TransformerReader(state, options)
        self.mlp_dim = state.shape("blocks.0.mlp.fc1.weight", 2)[0]
        if state.shape("blocks.0.mlp.fc2.weight", 2)[1] * 2 == self.mlp_dim:
            raise InputError(
                f"{state.called('blocks.0.mlp.fc1.weight')}: twice as many results as the next layer reads: an MLP "
                "with gates, which the accelerator does not have"
            )

    def read(self) -> Imported:
        """The Model."""
        state, reader, options = self.state, self.reader, self.told.options
        check_facts(self.told.checks, self._facts())
        image_size = reader.image_size(guess_square=True)
        check_facts(self.told.checks, {"image size": image_size} | self._position_facts())
        self.told.ask()
        if options.normalization is None:
            raise InputError(
                f"{state.source}: --normalize needed: the file does not say how its images were normalised",
                hint=f"imagenet for DeiT, DINO and MAE, half for most others of timm and Google's; {NORMALIZE_HINT}",
            )
        self.remarks.append(reader.read_embedding())
        for layer in range(reader.depth):
            reader.read_attention(layer)
            reader.read_mlp(layer, self.mlp_dim)
        if reader.has_layer_scale:
            self.remarks.append("folded into the layers in front of the residual sums: layer scale")
        task = (options.tasks or (TASK,))[0]
        if options.tasks is not None and len(options.tasks) > 1:
            raise InputError(f"{state.source}: --tasks names {len(options.tasks)} tasks, a plain ViT has one")
        heads = {task: self._read_head(task)} if "head.weight" in state else {}
        if not heads:
            # Without a head there is no place for the norm in front of it: the tokens of the last block are the output.
            dropped = state.waive(
                [f"{norm}.{part}" for norm in ("norm", "fc_norm") for part in ("weight", "bias")]
            )
            self.remarks.append(
                "no classification head"
                + (": the final norm is left to whoever reads the tokens" if dropped else "")
            )
        state.finish(REASONS)
        norm_eps = options.norm_eps or self.told.norm_eps or self.layout.norm_eps
        assumed = {
            "activation gelu": options.activation,
            f"norm_eps {norm_eps:g}": options.norm_eps or self.told.norm_eps,
        }
        if unsaid := [name for name, said in assumed.items() if not said]:
            self.remarks.append(f"assumed, as tensors do not say it: {', '.join(unsaid)}")
        spec = validate(
            ModelSpec,
            {
                "name": model_name(state.source),
                "image_size": image_size,
                **reader.geometry,
                "mlp_dim": self.mlp_dim,
                "norm_eps": norm_eps,
                "tasks": [task],
                "task_heads": heads,
                "pictures": _pictures(self.told.pictures),
            },
            state.source,
        )
        return Imported(Model(spec, reader.weights), remarks=tuple(self.remarks))

    def _facts(self) -> dict[str, Any]:
        """Facts that the tensors tell about settings, but for what depends on the size of the image."""
        state, reader = self.state, self.reader
        head = "head.weight" in state
        return {
            "dim": reader.dim,
            "depth": reader.depth,
            "mlp_dim": self.mlp_dim,
            "in_channels": reader.channels,
            "patch_size": reader.patch_size,
            "qkv_bias": reader.qkv_bias,
            "class token": "cls_token" in reader.prefix,
            "register tokens": reader.prefix.get(REGISTERS, 0),
            "layer scale": reader.has_layer_scale,
            "final norm": any(f"{norm}.weight" in state for norm in ("norm", "fc_norm")),
            "norm behind the pooling": "fc_norm.weight" in state,
            "classifier": head,
            "classes": state.shape("head.weight", 2)[0] if head else None,
        }

    def _position_facts(self) -> dict[str, Any]:
        rows = self.state.shape("pos_embed", 3)[1]
        if not self.reader.prefix:  # both forms are one
            return {}
        return {"patches alone have positions": rows == self.reader.patches}

    def _read_head(self, task: str) -> dict[str, Any]:
        """The classifier and its norms."""
        state, reader = self.state, self.reader
        classes, width = state.shape("head.weight", 2)
        pool = self._pool(width)
        norms = {name: name for name in ("norm", "fc_norm") if f"{name}.weight" in state}
        if pool.startswith("token") and "fc_norm" in norms:
            if len(norms) > 1 or pool != "token":
                raise InputError(
                    f"{state.called('fc_norm.weight')}: a norm behind the pooling of the class token, which heads here "
                    "do not have"
                )
            norms = {"norm": "fc_norm"}  # of one token it is the same in front of the choice and behind it
        reads_two = pool == "token-mean"
        reader.read_linear(f"heads.{task}", "head", (classes, 2 * reader.dim if reads_two else reader.dim))
        for ours, theirs in norms.items():
            reader.read_linear(f"heads.{task}.{ours}", theirs, (reader.dim,))
        kind, reads = _KINDS[pool]
        if "head_dist.weight" in state:
            if pool != "token":
                raise InputError(
                    f"{state.called('head_dist.weight')}: a second classifier on a mean of tokens, which heads here "
                    "do not have"
                )
            reader.read_linear(f"heads.{task}.dist", "head_dist", (classes, reader.dim))
            kind, reads = (
                "distilled-linear",
                "the class token, averaged with another on the distillation token",
            )
        self.remarks.append(
            f"head: {'final norm and ' if norms else ''}classifier of {classes} classes on {reads}"
        )
        names = self.told.classes
        if names and len(names) != classes:
            self.remarks.append(
                f"left out: {len(names)} names of classes, of which the classifier has {classes}"
            )
            names = ()
        return {
            "classes": list(names),
            "kind": kind,
            "out_channels": classes,
            "norm": "norm" in norms,
            "fc_norm": "fc_norm" in norms,
        }

    def _pool(self, width: int) -> str:
        """Tokens that the classifier reads: as the folder says, or by the tensors."""
        state, reader = self.state, self.reader
        pool = self.told.pool or ("mean" if "fc_norm.weight" in state or not reader.prefix else "token")
        if self.told.pool is None and width == 2 * reader.dim and pool == "token":
            pool = "token-mean"
        if pool.startswith("token") and "cls_token" not in reader.prefix:
            raise InputError(
                f"{state.source}: a classifier of the class token, of which there is no tensor "
                f"({state.file_name('cls_token')})"
            )
        return pool


def _pictures(fit: Fit | None) -> dict[str, Any] | None:
    return None if fit is None else {"resize": fit.method, "crop": fit.crop, "resample": fit.resample}


_KINDS = {
    "token": ("cls-linear", "the class token"),
    "mean": ("mean-linear", "the mean of the patch tokens"),
    "token-mean": ("cls-mean-linear", "the class token beside the mean of the patch tokens"),
    "mean-all": ("mean-all-linear", "the mean of all tokens"),
}
