"""The frames in Protobuf, taken and given as the dictionaries that JSON makes: by the classes that protoc generates from the published .proto
(tests/clients/run puts them on the path)."""

import uuid
from datetime import datetime, timezone

from google.protobuf.message import Message
from switchboard.v1 import switchboard_pb2 as pb

SUBPROTOCOL = "switchboard.v1.proto"
# What is a decimal string in JSON and a number here.
NUMBERS = {"user", "epoch", "rev", "before", "position", "read", "delivered", "member", "from"}
# What JSON always says, also when there is none.
PAGES = ("page", "conversations")


def encode(frame: dict) -> bytes:
    """A client's frame."""
    kind = frame["type"]
    wire = pb.ClientFrame()
    inner = getattr(wire, kind)
    inner.SetInParent()
    for name, value in frame.items():
        if name == "type" or value is None:
            continue
        elif name == "to":
            _to(inner, value)
        elif name == "id":
            inner.id = uuid.UUID(value).bytes
        elif name == "body":
            inner.text = value["text"]
        elif name == "reply_to":
            inner.reply_to.CopyFrom(pb.MessageRef(sender=int(value["from"]), id=uuid.UUID(value["id"]).bytes))
        elif name == "users":
            inner.users.extend(int(user) for user in value)
        elif name in NUMBERS:
            setattr(inner, name, int(value))
        elif name != "kind":   # the kind of a body is which one it is
            setattr(inner, name, value)
    return wire.SerializeToString(deterministic=True)


def _to(inner: Message, to: str) -> None:
    if to.startswith("u:"):
        inner.user = int(to[2:])
    else:
        inner.conversation = to


def decode(data: bytes) -> dict:
    """A server's frame."""
    wire = pb.ServerFrame.FromString(data)
    kind = wire.WhichOneof("frame")
    assert kind, f"a frame of no type that the contract knows: {data.hex()}"
    inner = getattr(wire, kind)
    if kind == "event":
        return {"type": kind, "seq": inner.seq, **_event(inner)}
    frame = {"type": kind, **_fields(inner)}
    if kind in PAGES:
        frame.setdefault("before", None)
    return frame


def _event(event: pb.Event) -> dict:
    kind = event.WhichOneof("event")
    inner = getattr(event, kind)
    shown = {"event": kind, "conversation": event.conversation, "position": str(event.position), "id": str(uuid.UUID(bytes=event.id)),
             "at": _time(event.at_ms)}
    if kind == "refused":
        return {**shown, "code": _name(inner.DESCRIPTOR.fields_by_name["code"], inner.code)}
    shown |= {"from": str(inner.sender), "kind": inner.WhichOneof("body"), "body": {"text": inner.text}}
    if inner.HasField("reply_to"):
        shown["reply_to"] = {"from": str(inner.reply_to.sender), "id": str(uuid.UUID(bytes=inner.reply_to.id))}
    return shown


def _fields(message: Message) -> dict:
    """Every field that can't be absent, and those of the others that are there."""
    shown = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        name = {"sender": "from"}.get(field.name, field.name)
        value = getattr(message, field.name)
        if field.enum_type:
            shown[name] = _name(field, value)
        elif field.is_repeated and field.message_type:
            shown[name] = [_item(item) for item in value]
        elif isinstance(value, Message):
            shown[name] = _item(value)
        elif name == "id":
            shown[name] = str(uuid.UUID(bytes=value))
        elif name.endswith("_ms") and name not in ("retry_after_ms", "after_ms"):
            shown[name.removesuffix("_ms")] = _time(value)
        else:
            shown[name] = str(value) if name in NUMBERS else value
    return shown


def _item(message: Message) -> dict:
    if isinstance(message, pb.Event):
        return _event(message)
    if isinstance(message, pb.ServerFrame.Summary):
        receipts = [{name: value for name, value in _fields(receipt).items() if name not in ("conversation", "rev")}
                    for receipt in message.receipts]
        return {**_fields(message), "receipts": receipts}
    return _fields(message)


def _name(field, number: int) -> str:
    """The name of JSON: behind the prefix, in lower case."""
    enum = field.enum_type
    return enum.values_by_number[number].name.removeprefix(enum.values_by_number[0].name.removesuffix("UNSPECIFIED")).lower()


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
