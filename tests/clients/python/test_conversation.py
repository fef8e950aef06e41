"""A whole conversation of users 42 and 43 through a real server, with `websockets`. Run beside a server: tests/clients/run python"""

import asyncio
import unittest

from client import Client, control, uuid7

CONVERSATION = "d:42:43"


class Person:
    """A user on one device: what it has stored, over all its connections."""

    def __init__(self, user: int):
        self.user = user
        self.stored: list[dict] = []
        self.client: Client | None = None
        self.epoch: str | None = None

    @property
    def cursor(self) -> int:
        return self.stored[-1]["seq"] if self.stored else 0

    async def attach(self) -> tuple[list[dict], dict]:
        self.client = await Client.open(self.user)
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


class Conversation(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.ann, self.bob = Person(42), Person(43)
        for person in (self.ann, self.bob):
            await person.attach()

    async def asyncTearDown(self):
        for person in (self.ann, self.bob):
            if person.client:
                await person.client.close()

    async def accepted(self, client: Client, to: str, text: str, message: str, **more) -> None:
        answer = await client.send(to, text, message, **more)
        self.assertEqual(answer, {"type": "accepted", "id": message, "conversation": CONVERSATION})

    async def test_both_see_it_and_the_answer_to_it(self):
        first, reply = uuid7(), uuid7()
        await self.accepted(self.ann.client, "u:43", "grüß dich", first)
        at_ann, at_bob = await self.ann.see(first), await self.bob.see(first)
        self.assertEqual((at_bob["from"], at_bob["body"]), ("42", {"text": "grüß dich"}))
        self.assertEqual(at_ann["position"], at_bob["position"])
        self.assertNotIn("reply_to", at_bob)

        await self.accepted(self.bob.client, CONVERSATION, "and you", reply, reply_to={"from": "42", "id": first})
        answered = await self.ann.see(reply)
        self.assertEqual(answered["reply_to"], {"from": "42", "id": first})
        self.assertGreater(int(answered["position"]), int(at_ann["position"]))

        await self.ann.client.post({"type": "ping"})
        self.assertIn("now", await self.ann.client.type("pong"))
        await (await self.ann.client.socket.ping())

    async def test_a_repeat_is_one_message_and_another_body_is_refused(self):
        once, last = uuid7(), uuid7()
        for _ in range(3):
            await self.accepted(self.ann.client, "u:43", "once", once)
        other = await self.ann.client.send("u:43", "twice?", once)
        if other["type"] == "accepted":   # then the refusal comes as an event
            other = await self.ann.client.take(lambda frame: frame.get("event") == "refused" and frame["id"] == once)
        self.assertEqual(other["code"], "id_reused")
        await self.accepted(self.ann.client, "u:43", "last", last)
        self.assertEqual((await self.bob.see(once))["body"], {"text": "once"})
        await self.bob.see(last)   # the next seq: nothing came between the two

    async def test_history_and_conversations(self):
        sent = [uuid7() for _ in range(5)]
        for message in sent:
            await self.accepted(self.bob.client, "u:42", message, message)
        read, before = [], None
        while True:
            await self.ann.client.post({"type": "history", "conversation": CONVERSATION, "before": before, "limit": 2})
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
        self.assertEqual((entry["conversation"], entry["last"]["id"]), (CONVERSATION, sent[-1]))

    async def test_resume_gives_exactly_what_was_missed(self):
        self.bob.client.socket.transport.abort()
        sent = [uuid7() for _ in range(40)]
        for message in sent:
            await self.accepted(self.ann.client, "u:43", message, message)
        missed, live = await self.bob.attach()
        self.assertEqual([event["id"] for event in missed], sent)
        self.assertEqual(live["head"], self.bob.cursor)
        now = uuid7()
        await self.accepted(self.ann.client, "u:43", "now", now)
        await self.bob.see(now)

    async def test_sigkill_loses_nothing_and_repeats_nothing(self):
        sent = [uuid7() for _ in range(40)]
        for message in sent[:15]:
            await self.accepted(self.ann.client, "u:43", message, message)
        for message in sent[15:25]:   # not waited for: the server dies meanwhile
            await self.ann.client.post({"type": "send", "id": message, "to": "u:43", "kind": "text", "body": {"text": message}})
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
            await self.accepted(self.ann.client, "u:43", message, message)
        while len(got()) < len(sent):
            await self.bob.store(await self.bob.client.type("event"))
        self.assertEqual(got(), sent)
        self.assertEqual(self.bob.client.events(), [])


if __name__ == "__main__":
    unittest.main()
