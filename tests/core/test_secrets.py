"""What is hidden, and what is not hidden for nothing."""

from __future__ import annotations

import pytest

from servd.core.secrets import MASK, is_secret_name, mask_line, mask_url


@pytest.mark.parametrize(
    "name",
    ["PASSWORD", "DB_PASSWORD", "dbPassword", "keyfile_password", "API_TOKEN", "token", "API_KEY",
     "apiKey", "AWS_SECRET_ACCESS_KEY", "CREDENTIALS", "PASSPHRASE", "SIGNING_KEY"],
)  # fmt: skip
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    ["tokenizer", "TOKENIZER_URL", "MAX_TOKENS", "AUTHOR", "KEYBOARD", "keyfile", "token_file",
     "client_auth", "KEY_COUNT", "COMPASS", "app", "workers"],
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
        ('app = "main:app"', 'app = "main:app"'),
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
