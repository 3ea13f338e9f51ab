"""
The steps a variant is made by, as data. Knows nothing of torch, files or how a step is done.

A step's text (`str(step)`) is its identity: it names cached checkpoints and stands in the
manifest's lineage. When a step's code changes its meaning, raise its `version`. What is None is
not said: an option that a step gains later leaves the names of older work as they were.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from models.spec import Task

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(gt=0)]
Weight = Annotated[float, Meta(ge=0)]  # of a part of a loss
Layers = Annotated[tuple[Count, ...], Meta(min_length=1)]

# The linear layers of a layer, by their names in the network.
Linear = Literal[
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
]
LINEARS: tuple[Linear, ...] = get_args(Linear)


def in_attention(name: str) -> bool:
    """Whether a linear layer of this name is in the attention half; the others feed forward."""
    return name.startswith("attention.")


# What static int8 can leave in float, in the order of a layer: all but the linear layers.
Group = Literal["embedding", "attention", "softmax", "bias", "residual", "layernorm", "gelu"]
GROUPS: tuple[Group, ...] = get_args(Group)

Stored = Literal["float32", "float16", "bfloat16"]
# Of a weight in blocks, and how many weights are in one.
Bits = Literal[8, 4]
Block = Literal[32, 64, 128]
BITS: tuple[Bits, ...] = get_args(Bits)
BLOCKS: tuple[Block, ...] = get_args(Block)

# Tokens that a fresh encoder reads at once.
POSITIONS = 512


class Step(msgspec.Struct, frozen=True):
    """One transform: a checkpoint folder in, a checkpoint folder out."""

    def __str__(self) -> str:
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        said = (f"{name}={_text(value)}" for name, value in values if value is not None)
        return f"{type(self).__name__}({', '.join(said)})"


class TrainTokenizer(Step, frozen=True, kw_only=True):
    """Unigram pieces (Kudo 2018) from the pretraining and training text, languages balanced."""

    vocabulary: Positive = 12_000
    sentences: Positive = 400_000
    seed: int = 1
    version: int = 1


class CountEmbeddings(Step, frozen=True, kw_only=True):
    """
    A fresh XLM-RoBERTa-type encoder whose embeddings are factors of how often pieces stand near
    each other (Levy, Goldberg and Dagan 2015) in `tokens` of running text.
    """

    layers: Positive = 4
    hidden: Positive = 256
    heads: Positive = 4
    inner: Positive = 1024
    tokens: Positive = 50_000_000
    seed: int = 1
    version: int = 1


class Pretrain(Step, frozen=True, kw_only=True):
    """Masked-language modelling (Devlin et al. 2019) of an encoder on running text."""

    tokens: Positive
    window: Annotated[int, Meta(ge=3)] = 128  # two are specials
    batch_tokens: Positive = 2_048
    masked: Share = 0.15
    peak: Rate = 7e-4
    warmup: Share = 0.06
    seed: int = 1
    version: int = 2


class Finetune(Step, frozen=True, kw_only=True):
    """
    Supervised training of the whole network with a fresh head.

    headlines  of articles the headline alone is read
    """

    task: Task
    languages: Annotated[tuple[str, ...], Meta(min_length=1)]
    epochs: Positive
    window: Annotated[int, Meta(ge=8)] = 256
    overlap: Count = 64
    batch_tokens: Positive = 4_096
    peak: Rate = 5e-4
    warmup: Share = 0.1
    dropout: Share = 0.1
    seed: int = 1
    version: int = 1
    headlines: bool | None = None


class Distill(Step, frozen=True, kw_only=True):
    """
    A student of some of the teacher's layers, perhaps narrower, learns the teacher's answers and
    hidden states (Sanh et al. 2019, Jiao et al. 2020) on its training text and on text without
    gold. Of an encoder without a head it learns the hidden states alone: for any task.

    layers       of the teacher, from 0, whose output the student's imitate; it begins as them
    transfer     how many texts without gold are added to the training texts
    temperature  by which both networks' logits are divided before they are compared
    soft         weight of the teacher's answers; gold labels have what is left to 1
    hidden       weight of the hidden states' mean squared error
    attention    weight of the attention maps' divergence; both need as many heads
    width, heads, inner
                 of the student where they are not the teacher's: a narrower one begins with the
                 principal axes of the teacher's embeddings and fresh layers
    fresh        begin with fresh layers even where the teacher's would fit
    """

    layers: Layers
    epochs: Positive
    transfer: Count = 50_000
    temperature: Rate = 2.0
    soft: Share = 0.8
    hidden: Weight = 0.5
    batch_tokens: Positive = 4_096
    peak: Rate = 5e-4
    warmup: Share = 0.1
    seed: int = 1
    version: int = 1
    attention: Weight | None = None
    width: Positive | None = None
    heads: Positive | None = None
    inner: Positive | None = None
    fresh: bool | None = None


class Healing(Step, frozen=True, kw_only=True):
    """
    What a transform that hurts may do about it: some epochs on the training text, taught by gold
    and by the network as it was before.

    epochs    0: none
    soft      weight of the answers before; gold labels have what is left to 1
    transfer  how many texts without gold are added, of which the answers before are learned alone
    dropout   while it heals; None: as when it was fine-tuned, but 0.1 of what Restore brought back
    """

    epochs: Count = 0
    soft: Share = 0.8
    batch_tokens: Positive = 4_096
    peak: Rate = 2e-4
    warmup: Share = 0.1
    seed: int = 1
    transfer: Positive | None = None
    dropout: Share | None = None


class Prune(Healing, frozen=True, kw_only=True):
    """
    Unstructured magnitude pruning (Han et al. 2015): the smallest weights of the linear layers
    become zero, and whatever trains after this leaves them zero. With `epochs` they go gradually
    (Zhu and Gupta 2017), while the rest heals. Before `Finetune` or after it.

    sparsity    share of the weights that become zero
    by_layer    that share of every matrix, instead of the smallest of all matrices together
    embeddings  the word embedding's rows too
    """

    sparsity: Annotated[float, Meta(gt=0, lt=1)]
    by_layer: bool = False
    embeddings: bool = False
    version: int = 1


class PruneStructure(Healing, frozen=True, kw_only=True):
    """
    Whole attention heads and feed-forward columns, the least important ones, are taken out: the
    network is smaller and faster. Importance is the loss's slope along each one's output (Michel
    et al. 2019, Molchanov et al. 2017) over `texts` training texts for each epoch of healing.

    heads, columns  share of all heads and of all columns that go; each layer keeps some of
                    what it has of both
    """

    heads: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    columns: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    texts: Positive = 2_000
    version: int = 1


class Factorize(Healing, frozen=True, kw_only=True):
    """
    Linear layers as products of smaller ones.

    method     svd: two matrices of rank `bond` (Eckart and Young 1936); mpo: matrix product
               operators of two cores with bond dimension `bond` (Tomut et al. 2024)
    bond       of every matrix, or its full one where that is less; None: only the embedding
    layers     that are factorized; None: all
    parts      of those layers, by their names in the network; None: all
    embedding  rank of the word embedding; None: it stays one table
    """

    method: Literal["svd", "mpo"] = "svd"
    bond: Positive | None = None
    layers: Layers | None = None
    parts: Annotated[tuple[Linear, ...], Meta(min_length=1)] | None = None
    embedding: Positive | None = None
    version: int = 1


class SkipAttention(Healing, frozen=True, kw_only=True):
    """The last `last` layers do without attention; what they add to it stays (Tyukin 2024)."""

    last: Positive
    version: int = 1


class SkipFeedForward(Healing, frozen=True, kw_only=True):
    """Some layers do without their feed-forward half; what they add to it stays (Tyukin 2024)."""

    layers: Layers
    version: int = 1


class TrimVocabulary(Step, frozen=True, kw_only=True):
    """
    Only the pieces that some languages need (Abdaoui et al. 2020, Ushio et al. 2023).

    languages  ISO 639-3, some of those that the checkpoint is for; none: all of them
    pieces     of the new vocabulary at most, specials and single characters included; 0: all that
               occur in the languages' text
    """

    languages: tuple[str, ...] = ()
    pieces: Count = 0
    version: int = 1


class TrimPositions(Step, frozen=True, kw_only=True):
    """Only the positions that the windows can reach."""

    version: int = 1


class NarrowWindows(Step, frozen=True, kw_only=True):
    """
    Long texts read in narrower windows than the network was trained with.

    Who learns from single sentences has met late positions too rarely to be read at them.
    """

    tokens: Annotated[int, Meta(ge=8)] = 128
    overlap: Count = 32
    version: int = 1


class Calibrate(Step, frozen=True, kw_only=True):
    """
    One temperature for all logits (Guo et al. 2017), so that scores say how often they are right.

    texts  of the dev split that it is found on, the same number of each language
    """

    texts: Positive = 3_000
    seed: int = 1
    version: int = 1


class Export(Step, frozen=True, kw_only=True):
    """To ONNX with dynamic axes. At 16 bits the weights are rounded first, then compared."""

    weights: Stored = "float32"
    version: int = 1


class Restore(Step, frozen=True, kw_only=True):
    """
    An exported network back to torch, to be compressed further.

    Where the catalog has the variant that the steps before this one make, it is taken from there
    instead of made again: what follows is then taught by the published weights themselves.
    """

    version: int = 1


class Quantize(Step, frozen=True, kw_only=True):
    """
    Dynamic int8: a scale per weight column, per activation row and per embedding row.

    embedding  4: the word embedding in blocks of 4 bits instead
    """

    bits: Literal[8] = 8
    version: int = 2
    embedding: Literal[4] | None = None


class QuantizeBlocks(Step, frozen=True, kw_only=True):
    """
    Weights alone, in blocks that share a scale and a zero point (Dettmers et al. 2022).

    bits       of a weight
    block      how many weights share a scale
    embedding  whether the word embedding is cut into blocks too
    """

    bits: Bits = 8
    block: Block = 32
    embedding: bool = True
    version: int = 1


class QuantizeStatic(Step, frozen=True, kw_only=True):
    """
    Static int8: a scale per weight column, and one for all activations of a layer, set on dev text.

    texts    of the dev split that the scales are set on, the same number of each language
    exclude  groups of operators left in float; () is the naive way, which leaves little of what the
             network knew
    """

    texts: Positive = 500
    exclude: tuple[Group, ...] = ("attention", "softmax", "bias", "residual", "layernorm", "gelu")
    seed: int = 1
    version: int = 1


class RunWith(Step, frozen=True, kw_only=True):
    """
    Another runtime than onnxruntime is to run the graph, which stays as it is.

    Weights stored in bfloat16 are multiplied in it, on processors that have it alone.
    """

    runtime: Literal["openvino"] = "openvino"
    version: int = 1


class Pack(Step, frozen=True, kw_only=True):
    """
    Graph and tokenizer packed without loss (Mao et al. 2024), unpacked in memory when they load.

    level  of zstd: how long it searches for what repeats
    """

    level: Annotated[int, Meta(ge=1, le=22)] = 19
    version: int = 1


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(str(item) for item in value)
    return str(value)
