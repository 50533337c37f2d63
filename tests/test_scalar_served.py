"""The client of a served discriminator against a real HTTP server on the loopback: shapes, retries, typed failures."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from guerdon.core.errors import GuerdonError
from guerdon.core.outcome import Failed
from guerdon.models.scalar.reference import REWARD_TOKEN, SEPARATOR, ReferenceRewardModel
from guerdon.models.scalar.served import ServedDiscriminator
from guerdon.models.scalar.tiny import tiny_tokenizer
from guerdon.rewards.reference import ReferenceReward

TOKENIZER = tiny_tokenizer(["one two three"], vocab=300)


class Server:
    """Answers with a status and a JSON value (or bytes) that the test chooses; scores a text by its length."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.answer: Callable[[int, Any], tuple[int, Any]] = lambda count, body: (200, shaped(body))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append((self.path, body))
                status, value = outer.answer(len(outer.requests), body)
                data = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.block_on_close = False
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def shaped(body: Any) -> Any:
    """SGLang's answer where the body is SGLang's, else vLLM's, a value a token."""
    if "text" in body:
        return [{"embedding": [len(text)]} for text in body["text"]]
    return {"data": [{"index": i, "data": [[0.0], [float(len(text))]]} for i, text in enumerate(body["input"])]}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def client(at: Server, **options: Any) -> ServedDiscriminator:
    settings = {"backoff": 0.001, "timeout": 5.0, **options}
    return ServedDiscriminator(at.address, TOKENIZER, **settings)


ROWS = (["one", "one", "two"], ["two", "two", "three"], ["three", "three three", ""])
TEXTS = [
    f"one\ntwo{SEPARATOR}one\nthree{REWARD_TOKEN}",
    f"one\ntwo{SEPARATOR}one\nthree three{REWARD_TOKEN}",
    f"two\nthree{SEPARATOR}two{REWARD_TOKEN}",
]


def test_sglang(server: Server) -> None:
    assert client(server).score(*ROWS) == [len(text) for text in TEXTS]
    assert server.requests == [("/classify", {"model": "POLAR-7B", "text": TEXTS})]


def test_vllm_reads_the_last_token_and_the_order(server: Server) -> None:
    server.answer = lambda count, body: (200, {"data": shaped(body)["data"][::-1]})
    assert client(server, server="vllm").score(*ROWS) == [len(text) for text in TEXTS]
    assert server.requests == [("/pooling", {"input": TEXTS})]


def test_lmdeploy(server: Server) -> None:
    server.answer = lambda count, body: (200, {"data": [{"data": -0.5703}, {"data": -11.0304}, {"data": 0}]})
    assert client(server, server="lmdeploy").score(*ROWS) == [-0.5703, -11.0304, 0.0]
    assert server.requests == [("/pooling", {"input": TEXTS})]


def test_batches_keep_the_order(server: Server) -> None:
    assert client(server, batch_size=2).score(*ROWS) == [len(text) for text in TEXTS]
    assert [len(body["text"]) for _, body in server.requests] == [2, 1]
    assert client(server).score([], [], []) == []


def test_it_tries_again_and_then_says_why(server: Server) -> None:
    ok = server.answer
    server.answer = lambda count, body: (503, "loading") if count < 3 else ok(count, body)
    assert client(server, attempts=3).score(*ROWS) == [len(text) for text in TEXTS] and len(server.requests) == 3
    server.requests.clear()
    server.answer = lambda count, body: (503, "loading")
    waits: list[float] = []
    found = client(server, attempts=3, backoff=0.2, sleep=waits.append).score(*ROWS)
    assert waits == [0.2, 0.4] and len(server.requests) == 3
    assert len(found) == 3 and all(isinstance(one, Failed) and one.kind == "unavailable" for one in found)
    assert "503" in found[0].cause and "after 3 attempts" in found[0].cause  # type: ignore[union-attr]


def test_only_the_rows_of_a_lost_request_fail(server: Server) -> None:
    ok = server.answer
    server.answer = lambda count, body: (500, "") if TEXTS[2] in body["text"] else ok(count, body)
    found = client(server, batch_size=2, attempts=2).score(*ROWS)
    assert found[:2] == [len(text) for text in TEXTS[:2]] and isinstance(found[2], Failed)


def test_the_row_at_fault_of_a_refused_request_is_found(server: Server) -> None:
    ok = server.answer
    server.answer = lambda count, body: (400, "too long") if TEXTS[1] in body["text"] else ok(count, body)
    found = client(server).score(*ROWS)
    assert found[0] == len(TEXTS[0]) and found[2] == len(TEXTS[2])
    assert isinstance(found[1], Failed) and found[1].kind == "refused" and "too long" in found[1].cause


def test_a_server_that_does_not_answer_in_time(server: Server) -> None:
    released = threading.Event()

    def hang(count: int, body: Any) -> tuple[int, Any]:
        released.wait(10)
        return 200, shaped(body)

    server.answer = hang
    found = client(server, timeout=0.1, attempts=2).score(*(side[:1] for side in ROWS))
    released.set()
    assert isinstance(found[0], Failed) and found[0].kind == "unavailable" and "Timeout" in found[0].cause


def test_nobody_listens() -> None:
    gone = Server()
    gone.close()
    found = client(gone, attempts=2).score(*ROWS)
    assert [one.kind for one in found] == ["unavailable"] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "answer, kind",
    [
        (b"not json", "unparseable"),
        ([{"embedding": [1.0]}], "unparseable"),  # one score to three texts
        ({"data": []}, "unparseable"),
        ([{"embedding": ["high"]}] * 3, "unparseable"),
        ([{"embedding": [True]}] * 3, "unparseable"),
        (b'[{"embedding": [NaN]}, {"embedding": [NaN]}, {"embedding": [NaN]}]', "not_finite"),
    ],
)
def test_another_shape_is_no_score(server: Server, answer: Any, kind: str) -> None:
    server.answer = lambda count, body: (200, answer)
    assert [one.kind for one in client(server).score(*ROWS)] == [kind] * 3  # type: ignore[union-attr]
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 404, 302])
def test_a_wrong_address_stops_the_run(server: Server, status: int) -> None:
    server.answer = lambda count, body: (status, "")
    with pytest.raises(GuerdonError, match=f"answered {status}"):
        client(server).score(*ROWS)


@pytest.mark.parametrize("options, said", [({"server": "vlm"}, "did you mean 'vllm'"), ({"attempts": 0}, "at least 1")])
def test_settings_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(GuerdonError, match=said):
        ServedDiscriminator("http://127.0.0.1:1", TOKENIZER, **options)
    with pytest.raises(GuerdonError, match="must start with http"):
        ServedDiscriminator("127.0.0.1:30000", TOKENIZER)


def test_as_a_reward_and_in_another_process(server: Server) -> None:
    made = client(server)
    assert isinstance(made, ReferenceRewardModel)
    copy = pickle.loads(pickle.dumps(made))  # noqa: S301 - our own bytes
    assert copy.score(*ROWS) == made.score(*ROWS) and copy.identity() == made.identity()
    assert client(server, server="vllm").identity() != made.identity()
    reward = ReferenceReward(made)
    found = reward(prompts=["one"], completions=["<think>hm</think>three"], reference=["two"])
    assert found == [len(TEXTS[0])]
