"""No secret enters the ledger; what is no secret stays readable."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patching.ledger.redaction import LONGEST, REDACTED, cap, redact, redact_text

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\nAAAA\n-----END OPENSSH PRIVATE KEY-----"

texts = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            [
                "password",
                "token",
                "Authorization",
                "Bearer",
                "=",
                ": ",
                " ",
                '"',
                "'",
                "$X",
                "abcdefgh",
                "https://",
                "u:p@h",
                "--api-key",
                "X-Auth-Token",
                "\n",
                "-----BEGIN RSA PRIVATE KEY-----",
                REDACTED,
                "basic",
            ]
        ),
        max_size=14,
    ).map("".join),
)


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        "db_password: hunter2",
        "PASSWORD = 'hunter2 with space'",
        'mysql --password="hunter2" -e x',
        "mysql --db-password=hunter2",
        '{"api_key": "hunter2"}',
        "export GITHUB_TOKEN=hunter2",
        "X-Auth-Token: hunter2",
        "Authorization: Basic hunter2==",
        "authorization: hunter2",
        "curl -H 'Authorization: Bearer hunter2hunter2' https://x",
        "Bearer hunter2hunter2",
        "https://eva:hunter2@repo.example/debian",
        "postgresql://eva:hunter2@/db?host=/run",
        KEY.replace("b3BlbnNza", "hunter2"),
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2 and cut off",
    ],
)
def test_secret_is_taken_out(text: str) -> None:
    assert "hunter2" not in redact_text(f"before\n{text}\nafter")
    assert redact_text(f"before\n{text}").startswith("before\n")


@pytest.mark.parametrize(
    "text",
    [
        "apt-get install passwd=1:4.13+dfsg1-1 libsecret-1-0=0.20.5-3 node-csrf-token=1.2",
        "Setting up passwd (1:4.13+dfsg1-1+deb12u1) ...",
        "Upgrade: passwd:amd64 (1:4.13, 1:4.14)",
        "curl -H \"Authorization: $AUTH\" --token=$TOKEN --password '$PW'",
        "https://repo.example:8080/path?x=1 ssh://eva@host",
        "waits for domain az-1: 1 of 1 in use by web-3",
        "a bearer of news",
        "0" * 64,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text


def test_values_of_secret_names_are_taken_out_of_json_with_their_paths() -> None:
    found = redact({"a": [{"db_password": "x", "passwd": "1:4.13"}], "Token": "y", "token_count": 3, "secret": "$REF"})
    assert found.value == {
        "a": [{"db_password": REDACTED, "passwd": "1:4.13"}],
        "Token": REDACTED,
        "token_count": 3,
        "secret": "$REF",
    }
    assert found.paths == ("$.a[0].db_password", "$.Token")


@given(texts)
@example(KEY)
@example("authorization: basic: bearer abcdefgh")
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact({"x": text}).value
    again = redact(once)
    assert again.value == once
    assert again.paths == ()


@given(st.text(max_size=300), st.integers(120, 400))
def test_capped_text_fits_and_keeps_both_ends(text: str, longest: int) -> None:
    shorter = cap(text, longest)
    assert len(shorter.encode()) <= longest
    if len(text.encode()) <= longest:
        assert shorter == text
    else:
        assert shorter[:2] == text[:2]
        assert shorter[-2:] == text[-2:]
        assert "left out" in shorter


def test_long_output_is_capped_and_documents_are_not() -> None:
    text = "a" * LONGEST + "é" * LONGEST
    assert len(redact({"stdout": text}).value["stdout"].encode()) <= LONGEST
    assert redact({"markdown": text}, longest=None).value["markdown"] == text


def test_hostile_output_of_megabytes_is_redacted_in_linear_time() -> None:
    """A quadratic pattern would take minutes here: the limit is far from both."""
    import time

    for unit in ("-", "a", "--", "a.", "token", "https://", "-----BEGIN PRIVATE KEY-----", "authorization: "):
        text = unit * (400_000 // len(unit))
        began = time.process_time()
        redact_text(text)
        assert time.process_time() - began < 5, unit
