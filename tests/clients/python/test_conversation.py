"""A whole conversation of two users through a real server, with `websockets`: in JSON, in Protobuf, and of one with the other. Run beside a
server: tests/clients/run python"""

import asyncio
import unittest

from client import Client, control, uuid7


class Person:
    """A user on one device: what it has stored, over all its connections."""

    def __init__(self, user: int, encoding: str):
        self.user = user
        self.encoding = encoding
        self.stored: list[dict] = []
        self.client: Client | None = None
        self.epoch: str | None = None

    @property
    def cursor(self) -> int:
        return self.stored[-1]["seq"] if self.stored else 0

    async def attach(self) -> tuple[list[dict], dict]:
        self.client = await Client.open(self.user, self.encoding)
        hello = {"device": "python-1", "cursor": self.cursor}
        if self.epoch:
            hello["epoch"] = self.epoch
        welcome, missed, live = await self.client.attach(**hello)
        assert self.epoch in (None, welcome["epoch"]), "the same data is the same stream"
        self.epoch = welcome["epoch"]
        for event in missed:
            await self.store(event)
        return missed, live

    async def store(self, event: dict) -> dict:
        """In order and without holes; then acknowledged."""
        assert event["seq"] == self.cursor + 1, f"after {self.cursor} came {event['seq']}"
        self.stored.append(event)
        await self.client.post({"type": "received", "seq": event["seq"]})
        return event

    async def see(self, message: str) -> dict:
        return await self.store(await self.client.event(message))


class Conversation:
    """Of two users, each with an encoding. Each pair has mailboxes of its own."""

    PAIR: tuple[tuple[int, str], tuple[int, str]]

    async def asyncSetUp(self):
        self.ann, self.bob = (Person(*person) for person in self.PAIR)
        ann, bob = self.ann.user, self.bob.user
        self.to_ann, self.to_bob, self.conversation = f"u:{ann}", f"u:{bob}", f"d:{ann}:{bob}"
        for person in (self.ann, self.bob):
            await person.attach()

    async def asyncTearDown(self):
        for person in (self.ann, self.bob):
            if person.client:
                await person.client.close()

    async def accepted(self, client: Client, to: str, text: str, message: str, **more) -> None:
        answer = await client.send(to, text, message, **more)
        self.assertEqual(answer, {"type": "accepted", "id": message, "conversation": self.conversation})

    async def test_what_is_stored_and_read_is_told_to_the_sender_and_in_the_list(self):
        message = uuid7()
        await self.accepted(self.ann.client, self.to_bob, "tick", message)
        position = (await self.bob.see(message))["position"]
        await self.bob.client.post({"type": "read", "conversation": self.conversation, "position": position})
        receipt = await self.ann.client.take(
            lambda frame: frame["type"] == "receipt" and int(frame["read"]) >= int(position) and int(frame["delivered"]) >= int(position))
        self.assertEqual((receipt["conversation"], receipt["member"]), (self.conversation, str(self.bob.user)))
        self.assertGreater(int(receipt["rev"]), int(position))
        await self.bob.client.take(lambda frame: frame["type"] == "receipt" and int(frame["read"]) >= int(position))
        await self.bob.client.post({"type": "conversations", "limit": 10})
        listed = next(one for one in (await self.bob.client.type("conversations"))["conversations"]
                      if one["conversation"] == self.conversation)
        self.assertEqual((listed["unread"], listed["read"]), (0, position))
        self.assertEqual([one["member"] for one in listed["receipts"]], [str(self.ann.user)])

    async def test_somebody_who_writes_and_is_there_is_seen(self):
        await self.accepted(self.ann.client, self.to_bob, "hello", uuid7())
        await self.ann.client.post({"type": "watch", "users": [str(self.bob.user)]})
        self.assertEqual(await self.ann.client.type("presence"), {"type": "presence", "user": str(self.bob.user), "online": True})
        await self.bob.client.post({"type": "typing", "to": self.to_ann})
        self.assertEqual(await self.ann.client.type("typing"),
                         {"type": "typing", "conversation": self.conversation, "from": str(self.bob.user)})

    async def test_both_see_it_and_the_answer_to_it(self):
        first, reply = uuid7(), uuid7()
        await self.accepted(self.ann.client, self.to_bob, "grüß dich", first)
        at_ann, at_bob = await self.ann.see(first), await self.bob.see(first)
        self.assertEqual((at_bob["from"], at_bob["body"]), (str(self.ann.user), {"text": "grüß dich"}))
        self.assertEqual(at_ann["position"], at_bob["position"])
        self.assertNotIn("reply_to", at_bob)

        await self.accepted(self.bob.client, self.conversation, "and you", reply, reply_to={"from": str(self.ann.user), "id": first})
        answered = await self.ann.see(reply)
        self.assertEqual(answered["reply_to"], {"from": str(self.ann.user), "id": first})
        self.assertGreater(int(answered["position"]), int(at_ann["position"]))

        await self.ann.client.post({"type": "ping"})
        self.assertIn("now", await self.ann.client.type("pong"))
        await (await self.ann.client.socket.ping())

    async def test_a_repeat_is_one_message_and_another_body_is_refused(self):
        once, last = uuid7(), uuid7()
        for _ in range(3):
            await self.accepted(self.ann.client, self.to_bob, "once", once)
        other = await self.ann.client.send(self.to_bob, "twice?", once)
        if other["type"] == "accepted":   # then the refusal comes as an event
            other = await self.ann.client.take(lambda frame: frame.get("event") == "refused" and frame["id"] == once)
        self.assertEqual(other["code"], "id_reused")
        await self.accepted(self.ann.client, self.to_bob, "last", last)
        self.assertEqual((await self.bob.see(once))["body"], {"text": "once"})
        await self.bob.see(last)   # the next seq: nothing came between the two

    async def test_history_and_conversations(self):
        sent = [uuid7() for _ in range(5)]
        for message in sent:
            await self.accepted(self.bob.client, self.to_ann, message, message)
        read, before = [], None
        while True:
            await self.ann.client.post({"type": "history", "conversation": self.conversation, "before": before, "limit": 2})
            page = await self.ann.client.type("page")
            read = page["events"] + read
            before = page["before"]
            if before is None:
                break
        positions = [int(event["position"]) for event in read]
        self.assertEqual(positions, sorted(set(positions)))
        self.assertEqual([event["id"] for event in read[-5:]], sent)
        await self.ann.client.post({"type": "conversations", "before": None, "limit": 10})
        (entry,) = (await self.ann.client.type("conversations"))["conversations"]
        self.assertEqual((entry["conversation"], entry["last"]["id"]), (self.conversation, sent[-1]))

    async def test_resume_gives_exactly_what_was_missed(self):
        self.bob.client.socket.transport.abort()
        sent = [uuid7() for _ in range(40)]
        for message in sent:
            await self.accepted(self.ann.client, self.to_bob, message, message)
        missed, live = await self.bob.attach()
        self.assertEqual([event["id"] for event in missed], sent)
        self.assertEqual(live["head"], self.bob.cursor)
        now = uuid7()
        await self.accepted(self.ann.client, self.to_bob, "now", now)
        await self.bob.see(now)

    async def test_sigkill_loses_nothing_and_repeats_nothing(self):
        sent = [uuid7() for _ in range(40)]
        for message in sent[:15]:
            await self.accepted(self.ann.client, self.to_bob, message, message)
        for message in sent[15:25]:   # not waited for: the server dies meanwhile
            await self.ann.client.post({"type": "send", "id": message, "to": self.to_bob, "kind": "text", "body": {"text": message}})
        await control("kill")
        await asyncio.gather(self.ann.client.closed(), self.bob.client.closed())
        accepted = set(sent[:15]) | {frame["id"] for frame in self.ann.client.unread if frame["type"] == "accepted"}
        before = self.bob.cursor
        self.bob.stored += self.bob.client.events()
        await control("start")
        await self.ann.attach()
        await self.bob.attach()

        def got() -> list[str]:
            return [event["id"] for event in self.bob.stored if event["seq"] > before]

        self.assertLessEqual(accepted, set(got()), "what was accepted survives")
        for message in sent[15:]:   # repeats are one message
            await self.accepted(self.ann.client, self.to_bob, message, message)
        while len(got()) < len(sent):
            await self.bob.store(await self.bob.client.type("event"))
        self.assertEqual(got(), sent)
        self.assertEqual(self.bob.client.events(), [])


class InJson(Conversation, unittest.IsolatedAsyncioTestCase):
    PAIR = ((42, "json"), (43, "json"))


class InProtobuf(Conversation, unittest.IsolatedAsyncioTestCase):
    PAIR = ((44, "proto"), (45, "proto"))


class OfBoth(Conversation, unittest.IsolatedAsyncioTestCase):
    PAIR = ((46, "json"), (47, "proto"))


if __name__ == "__main__":
    unittest.main()
