"""What is hidden, and what is not hidden for nothing."""

from __future__ import annotations

import pytest

from servd.core.secrets import MASK, is_secret_name, mask_line, mask_text, mask_url, mask_values


@pytest.mark.parametrize(
    "name",
    ["PASSWORD", "DB_PASSWORD", "dbPassword", "keyfile_password", "API_TOKEN", "token", "API_KEY",
     "apiKey", "AWS_SECRET_ACCESS_KEY", "CREDENTIALS", "PASSPHRASE", "SIGNING_KEY", "PGPASSWORD",
     "MYSQL_PWD", "JWT", "SLACK_WEBHOOK", "GITHUBTOKEN", "--password", "requirepass"],
)  # fmt: skip
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["tokenizer", "TOKENIZER_URL", "MAX_TOKENS", "AUTHOR", "KEYBOARD", "keyfile", "token_file",
     "client_auth", "KEY_COUNT", "COMPASS", "BYPASS", "--max-tokens", "app", "workers"],
)  # fmt: skip
def test_other_names_are_not_taken_for_secrets(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('keyfile_password = "hunter2"', f"keyfile_password = {MASK}"),
        ("  api_token: hunter2", f"  api_token: {MASK}"),
        (
            'env = { A = "1", DB_PASSWORD = "hunter2" }',
            f'env = {{ A = "1", DB_PASSWORD = {MASK} }}',
        ),
        ('{"password": "hunter2"}', f'{{"password": {MASK}}}'),
        ('url = "postgres://me:hunter2@db/x"', f'url = "postgres://me:{MASK}@db/x"'),
        (
            """command = ["x", "--password", "hun\\"ter2", '-p', 'y']""",
            f"""command = ["x", "--password", {MASK}, '-p', 'y']""",
        ),
        ('app = "main:app"', 'app = "main:app"'),
        ('url = "https://x/?token=a&b=c"', f'url = "https://x/?token={MASK}&b=c"'),
        ('command = "x --password=hunter2 -v"', f'command = "x --password={MASK} -v"'),
    ],
)
def test_lines_are_shown_without_their_secrets(line: str, shown: str) -> None:
    assert mask_line(line) == shown


def test_a_value_on_a_line_of_its_own_is_masked_by_its_key() -> None:
    assert mask_line('    "hunter2",', "services.web.env.API_TOKEN") == f"    {MASK}"
    assert mask_line("[services.token]", "services.token") == "[services.token]"


def test_urls_keep_everything_but_the_password() -> None:
    assert mask_url("redis://:pw@host/0") == f"redis://:{MASK}@host/0"
    assert mask_url("http://host:80/a@b") == "http://host:80/a@b"
    assert mask_url("https://x/?key=a&page=2&sig=b") == f"https://x/?key={MASK}&page=2&sig={MASK}"


def test_commands_are_shown_without_their_secrets() -> None:
    text = "run --password hunter2 --api-token=hunter2 --max-tokens 5 https://h/?token=hunter2"
    assert "hunter2" not in mask_text(text)
    assert "--max-tokens 5" in mask_text(text)
    words = ["run", "--password", "hunter2", "--verbose", "a", "--token=hunter2", "--requirepass"]
    shown = mask_values({"command": words}, ("services", "web"), frozenset())["command"]
    assert shown == [
        "run",
        "--password",
        MASK,
        "--verbose",
        "a",
        f"--token={MASK}",
        "--requirepass",
    ]
