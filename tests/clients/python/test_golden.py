"""The golden vectors of the protocol against the classes that protoc generates: tests/clients/run python"""

import json
import unittest
from pathlib import Path

import proto
from switchboard.v1 import switchboard_pb2 as pb

VECTORS = json.loads((Path(__file__).resolve().parents[3] / "protocol/tests/golden/frames.json").read_text())
SIDES = {"client": pb.ClientFrame, "server": pb.ServerFrame}


def differences(shown, wanted, path="") -> list[str]:
    """What `shown` says beyond `wanted` may only be fields that JSON leaves out while they are 0 or empty."""
    if isinstance(shown, dict) and isinstance(wanted, dict):
        more = [f"{path}.{name}" for name, value in shown.items() if name not in wanted and value not in (0, "0", "", [])]
        less = [f"{path}.{name}" for name in wanted if name not in shown]
        return more + less + [d for name in shown.keys() & wanted.keys() for d in differences(shown[name], wanted[name], f"{path}.{name}")]
    if isinstance(shown, list) and isinstance(wanted, list) and len(shown) == len(wanted):
        return [d for at, pair in enumerate(zip(shown, wanted)) for d in differences(*pair, f"{path}[{at}]")]
    return [] if (type(shown), shown) == (type(wanted), wanted) else [f"{path}: {shown!r}, not {wanted!r}"]


class Golden(unittest.TestCase):
    def test_generated_classes_read_and_write_every_vector(self):
        for vector in VECTORS:
            with self.subTest(vector["name"], side=vector["side"]):
                data = bytes.fromhex(vector["proto"])
                frame = SIDES[vector["side"]].FromString(data)
                self.assertEqual(frame.WhichOneof("frame"), vector["json"]["type"])
                self.assertEqual(frame.SerializeToString(deterministic=True), data)

    def test_json_and_protobuf_of_a_vector_say_the_same(self):
        for vector in VECTORS:
            with self.subTest(vector["name"], side=vector["side"]):
                if vector["side"] == "client":
                    self.assertEqual(proto.encode(vector["json"]).hex(), vector["proto"])
                else:
                    self.assertEqual(differences(proto.decode(bytes.fromhex(vector["proto"])), vector["json"]), [])

    def test_every_type_of_the_contract_has_a_vector(self):
        for side, frame in SIDES.items():
            types = {field.name for field in frame.DESCRIPTOR.oneofs_by_name["frame"].fields}
            self.assertEqual(types, {vector["json"]["type"] for vector in VECTORS if vector["side"] == side})


if __name__ == "__main__":
    unittest.main()
