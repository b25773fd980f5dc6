"""Messages between processes: whole, in order, and with an end."""

import os
import threading

import pytest

from cvmfs_graphdriver.kernel.channel import Channel


def test_messages_go_both_ways_and_in_order() -> None:
    ours, theirs = Channel.pair()
    messages = [1, "ü\udcff", b"\0", ("a", [1.5, None, True]), {"b": ()}]
    for message in messages:
        ours.send(message)
    assert [theirs.receive() for _ in messages] == messages
    theirs.send("an answer")
    assert ours.receive() == "an answer"
    ours.close()
    theirs.close()


def test_a_message_may_be_bigger_than_the_pipe() -> None:
    ours, theirs = Channel.pair()
    content = os.urandom(3 << 20)
    sender = threading.Thread(target=ours.send, args=(content,))
    sender.start()
    assert theirs.receive() == content
    sender.join()
    ours.close()
    theirs.close()


def test_quiet_until_a_message_or_the_end_arrives() -> None:
    ours, theirs = Channel.pair()
    assert theirs.is_quiet()
    assert theirs.is_quiet(0.01)
    ours.send(1)
    ours.send(2)
    assert not theirs.is_quiet(None)
    assert theirs.receive() == 1
    assert not theirs.is_quiet(), "the second one has been received with the first"
    assert theirs.receive() == 2
    assert theirs.is_quiet()
    ours.close()
    assert not theirs.is_quiet()
    with pytest.raises(EOFError):
        theirs.receive()
    with pytest.raises(BrokenPipeError):
        theirs.send(3)
    theirs.close()


def test_an_offer_never_waits() -> None:
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    channel = Channel(receiving, sending)
    assert not channel.offer(bytes(1 << 16)), "too long to be written at once"
    sent = 0
    while channel.offer(sent):
        sent += 1
    assert sent > 100
    assert [channel.receive() for _ in range(sent)] == list(range(sent))
    assert channel.offer("again")
    channel.close()
