"""What `module.json` says of a module, and what it asks of the module's tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from peftport.errors import BadInput
from peftport.hosts.geometry import geometry_from_record
from peftport.hosts.source import lasting
from peftport.kind import USUAL
from peftport.techniques import technique
from peftport.techniques.base import Shapes
from peftport.techniques.head import Pooling, head_shapes

FORMAT = 1
Dtype = Literal["float32", "bfloat16", "float16"]
Said = TypeVar("Said", bound=BaseModel)


class ModelClass(BaseModel):
    """The class of model that a module of another library was made on.

    family, kind: of its host. task_type, auto_mapping: PEFT's words for the class. inside: whether
        its layers are named as in a model that holds the bare one; None where that is the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    family: str
    kind: str
    task_type: str | None
    auto_mapping: dict[str, Any] | None
    inside: bool | None


class HostName(BaseModel):
    """A host as a module remembers it: its name, the fingerprint of its weights, and what names
    its tokenizer (`peftport.hosts.vocabulary.tokenizer_mark`).

    The last two are empty where they are not known: the files of other libraries do not say them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    fingerprint: str
    tokenizer: str = ""


class _TaskRecord(BaseModel):
    """What a record says of its task, as far as modules are read by it."""

    model_config = ConfigDict(extra="allow", strict=True)
    name: str
    labels: list[str | int | bool]
    label_words: list[str] | None = None
    templates: dict[str, str] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    kind: str = USUAL
    form: str = "labelled"
    flat: bool = False
    system: str | None = None
    max_answer: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class _TextsRecord(BaseModel):
    count: int
    source: str


class _PortRecord(BaseModel):
    """What a record says of its port, as far as cards tell it."""

    method: str
    origin: HostName = Field(alias="from")
    seed: int = 0
    options: dict[str, Any] = {}
    task: str = ""
    counts: dict[str, int] = {}
    texts: _TextsRecord | None = None
    trained: dict[str, Any] = {}
    before: _PortRecord | None = None


def _readable(port: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a record says of a port; ValueError where a card could not tell it."""
    if port is not None:
        _PortRecord.model_validate(port)
    return port


class Record(BaseModel):
    """What `module.json` says; unknown keys are errors.

    host: the host that the tensors are made for. origin: the host that the module was trained on.
    task: name, labels, label words, template and data hashes of the task (`Task.record()`). A
        module of another library does not say its task: it is then called "unknown", and has
        labels where a head tells their number.
    training: steps, learning rate and the like; empty for a module that never was trained.
    port: method, seed and the donor's host, when the module was ported; `before` is what it says of
        the donor's own port, if that was ported, too.
    head: how a head pools; of no effect where there is none.
    embeddings: shapes of the embeddings that the module brings along, by name.
    converted: by place, the share of its change that was lost when a module of another kind was
        made a LoRA.
    left_out: shapes of what its files have besides and peftport cannot carry, by name.
    dtype: the type that its tensors are written in. model: the class of model that a module of PEFT
        was made on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT
    technique: str
    config: dict[str, Any]
    geometry: dict[str, Any]
    host: HostName
    origin: HostName
    task: dict[str, Any]
    seed: int
    training: dict[str, Any] = {}
    port: Annotated[dict[str, Any] | None, AfterValidator(_readable)] = None
    head: Pooling = "mean"
    dtype: Dtype = "float32"
    model: ModelClass | None = None
    versions: dict[str, str] = {}
    embeddings: dict[str, tuple[int, ...]] = {}
    left_out: dict[str, tuple[int, ...]] = {}
    converted: dict[str, float] = {}

    @property
    def kind(self) -> str:
        """The kind of the module's task, by its name."""
        return str(self.task.get("kind", USUAL))

    def lasting(self) -> Record:
        """The same with folders of hosts by their whole paths, which hold from everywhere."""
        hosts = {
            key: host.model_copy(update={"name": lasting(host.name)})
            for key, host in (("host", self.host), ("origin", self.origin))
        }
        return self.model_copy(update={**hosts, "port": _lasting_port(self.port)})


def _lasting_port(port: dict[str, Any] | None) -> dict[str, Any] | None:
    """A port, and those before it, with whole paths."""
    if port is None:
        return None
    changed: dict[str, Any] = {}
    if "from" in port:
        changed["from"] = port["from"] | {"name": lasting(port["from"]["name"])}
    if "before" in port:
        changed["before"] = _lasting_port(port["before"])
    return port | changed


def parse_record(raw: Any, path: Path) -> Record:
    """Build a record from the content of a JSON file; BadInput names file and key."""
    if not isinstance(raw, dict):
        raise BadInput(f"{path}: expected a mapping of keys, not {type(raw).__name__}.")
    if raw.get("format") != FORMAT:
        raise BadInput(f"{path}: format {raw.get('format')!r}, expected {FORMAT}.")
    record = _valid(Record, raw, path)
    _valid(_TaskRecord, record.task, path, "task.")
    try:
        expected_shapes(record)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    return record


def _valid(kind: type[Said], raw: dict[str, Any], path: Path, within: str = "") -> Said:
    """What `raw`, which stands in the file `path`, says; BadInput names file and key."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = within + ".".join(map(str, first["loc"]))
        raise BadInput(f"{path}: {key}: {first['msg']}.") from error


def expected_shapes(record: Record) -> Shapes:
    """Names and shapes that technique, configuration and geometry ask for."""
    made, geometry = technique(record.technique), geometry_from_record(record.geometry)
    shapes = made.shapes(made.configure(record.config), geometry)
    head = head_shapes(geometry, len(record.task.get("labels", ())), record.head)
    return shapes | head | record.embeddings
