"""pip, twine and uv as their users run them: no flag for the index, no prompt, no variable; their files say it all."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from .conftest import MakeWheel
from .lab import PASSWORDS, ROOT, SURVIVOR, Lab

QUIET = "--no-input --disable-pip-version-check --no-cache-dir"


@pytest.fixture(scope="module")
def pip(lab: Lab) -> str:
    lab.client.check_output("python3 -m venv --clear ~/tests")
    return "/home/admin/tests/bin/pip"


def sha256(path: Path) -> str:
    return hashlib.file_digest(path.open("rb"), "sha256").hexdigest()


def scope(lab: Lab) -> str:
    return str(lab.of_client.get("pypi_client_scope", "system"))


UPLOADS = {
    "twine": "twine upload --non-interactive --disable-progress-bar",
    "uv": "uv publish --no-progress",
}


@pytest.mark.parametrize("size", [1_000, 5_000_000, 200_000_000])
@pytest.mark.parametrize("tool", UPLOADS)
def test_a_wheel_comes_back_byte_identical(
    lab: Lab, pip: str, make: MakeWheel, version: str, tool: str, size: int
) -> None:
    name = f"acme-{tool}-{size}"
    wheel = make(name, size)
    there = lab.bring(wheel)
    lab.client.check_output(f"{UPLOADS[tool]} {there} 2>&1")
    lab.client.check_output(f"rm -rf ~/back && {pip} download {QUIET} --no-deps --dest ~/back {name} 2>&1")
    back = lab.client.check_output(f"sha256sum ~/back/*.whl && rm -r ~/back {there} || rm -f {there}").split()[0]
    assert back == sha256(wheel)


@pytest.mark.parametrize(
    "installer", ["~/tests/bin/pip install --no-input --no-cache-dir", "uv pip install --no-cache"]
)
def test_a_wheel_installs(lab: Lab, pip: str, make: MakeWheel, version: str, installer: str) -> None:
    name = f"acme-by-{installer.split()[0][-2:]}"
    lab.client.check_output(f"twine upload --non-interactive {lab.bring(make(name, 5_000_000))}")
    lab.client.check_output(f"VIRTUAL_ENV=~/tests {installer} {name} 2>&1")
    module = name.replace("-", "_")
    assert lab.client.check_output(f"~/tests/bin/python -c 'import {module}; print({module}.__version__)'") == version


def test_pip_lists_the_versions(lab: Lab, pip: str) -> None:
    assert "survivor (1.0)" in lab.client.check_output(f"{pip} index versions {QUIET} survivor 2>&1")


def test_uv_resolves_with_hashes(lab: Lab) -> None:
    resolved = lab.client.run("echo survivor | uv pip compile --no-cache --generate-hashes --no-header -")
    on_disk = lab.client.check_output(f"sha256sum ~/{SURVIVOR}").split()[0]
    assert "survivor==1.0" in resolved.stdout and f"--hash=sha256:{on_disk}" in resolved.stdout
    assert "warning" not in resolved.stderr, resolved.stderr


@pytest.mark.parametrize("tool", UPLOADS)
def test_a_duplicate_is_refused_clearly(lab: Lab, make: MakeWheel, tool: str) -> None:
    # Another content under the same name: uv rightly takes the same bytes for an upload that has succeeded already.
    wheel = lab.bring(make(f"acme-twice-{tool}", 2_000))
    lab.client.check_output(f"{UPLOADS[tool]} {wheel} 2>&1")
    wheel = lab.bring(make(f"acme-twice-{tool}", 3_000))
    again = lab.client.run(f"{UPLOADS[tool]} {wheel} 2>&1")
    assert again.rc != 0 and "exist" in again.stdout, again.stdout


def test_uv_publish_skips_what_is_there(lab: Lab, make: MakeWheel) -> None:
    wheel = lab.bring(make("acme-check-url", 2_000))
    check = f"uv publish --no-progress --check-url {lab.url}/simple/ {wheel} 2>&1"
    lab.client.check_output(check)
    assert "already exists, skipping" in lab.client.check_output(check)


def test_pip_has_its_index_from_one_file_and_no_secret_in_it(lab: Lab, pip: str) -> None:
    configuration = lab.client.check_output(f"{pip} config list")
    assert f"global.index-url='{lab.url}/simple/'" in configuration
    assert "extra-index-url" not in configuration
    files = lab.client.check_output(
        "cat /etc/pip.conf ~/.config/pip/pip.conf /etc/uv/uv.toml ~/.config/uv/uv.toml 2>/dev/null; true"
    )
    assert lab.url in files
    assert not [name for name, password in PASSWORDS.items() if password in files or f"{name}:" in files]


def test_credentials_are_for_their_owner_only(lab: Lab) -> None:
    for name in (".netrc", ".pypirc"):
        file = lab.client.file(f"/home/admin/{name}")
        assert (file.user, file.group, file.mode) == ("admin", "admin", 0o600), name


def test_who_has_no_credentials_gets_none_of_the_packages(lab: Lab, pip: str) -> None:
    """The index is the machine's, the credentials are one user's."""
    refused = lab.client.run(
        f"HOME=/nonexistent {pip} download {QUIET} -vv --no-deps --dest /tmp/x --index-url {lab.url}/simple/ survivor 2>&1"
    )
    assert refused.rc != 0 and "401 Client Error" in refused.stdout, refused.stdout


def test_a_login_shell_knows_the_ca(lab: Lab) -> None:
    """For requests, which brings CAs of its own; in the scope `user` the others' shells are left alone."""
    said = lab.client.check_output("bash -lc 'echo $REQUESTS_CA_BUNDLE $SSL_CERT_FILE'")
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    assert said.split() == ([bundle] * 2 if scope(lab) == "system" else [])


def test_another_address_leaves_nothing_of_the_old_one(lab: Lab) -> None:
    places = "/etc/pip.conf /etc/uv /etc/profile.d /home/admin/.netrc /home/admin/.pypirc /home/admin/.config /var/lib/private-pypi"
    look = f"sudo sh -c 'grep -r \"\" {places} 2>/dev/null; true'"
    before = lab.client.check_output(look)
    assert lab.hostname in before
    other = {"pypi_hostname": "moved.example.com", "pypi_client_repository": "elsewhere"}
    other["pypi_client_scope"] = "user" if scope(lab) == "system" else "system"
    try:
        run = lab.site(playbook="playbooks/clients.yml", **other)
        assert run.returncode == 0, run.stdout[-5000:]
        assert f"this host was set up for {lab.url}/simple/" in " ".join(run.stdout.split())
        after = lab.client.check_output(look)
        assert "moved.example.com" in after and lab.hostname not in after
    finally:
        assert lab.site(playbook="playbooks/clients.yml").returncode == 0
    assert sorted(lab.client.check_output(look).splitlines()) == sorted(before.splitlines())


def test_the_docker_build_of_the_readme_asks_nobody_else(lab: Lab, tmp_path: Path) -> None:
    """By the server's engine, with the client's files. test_dry_run.py looks for the password in what is left of it."""
    readme = (ROOT / "README.md").read_text()
    (dockerfile,) = re.findall(r"^```dockerfile\nFROM .*\n((?:.*\n)*?)```$", readme, re.MULTILINE)
    (command,) = re.findall(r"^    (docker build --secret(?:.*\\\n)*.*)$", readme, re.MULTILINE)
    pip_conf = "/etc/pip.conf" if scope(lab) == "system" else "/home/admin/.config/pip/pip.conf"
    files = {
        ".netrc": lab.client.check_output("cat ~/.netrc"),
        "etc/pip.conf": lab.client.check_output(f"cat {pip_conf}"),
        "etc/ssl/certs/ca-certificates.crt": lab.trusted,
        "build/Dockerfile": f"FROM pypiserver/pypiserver:v2.4.1\n{dockerfile}",
        "build/requirements.txt": "survivor\n",
    }
    for name, text in files.items():
        (tmp_path / "readme" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "readme" / name).write_text(text + "\n")
    # The names of the lab are known to the hosts, and the host itself is reached from its own network only.
    network = f"--network host --add-host {lab.hostname}:{lab.address(lab.server_name)} --progress plain --tag readme"
    command = command.replace("docker build", f"docker build {network}").replace("src=/", "src=$HOME/")
    server = lab.container(lab.server_name)
    try:
        subprocess.run(["docker", "cp", "--quiet", tmp_path / "readme", f"{server}:/root/readme"], check=True)
        said = lab.server.check_output(
            f"cd /root/readme/build && export HOME=/root/readme DOCKER_BUILDKIT=1 && {command} 2>&1"
        )
    finally:
        lab.server.check_output("rm -rf /root/readme")
    assert f"Looking in indexes: {lab.url}/simple/" in said and "Successfully installed survivor-1.0" in said, said
    assert (
        lab.server.check_output(
            "docker run --rm --entrypoint python3 readme -c 'import survivor; print(survivor.__version__)'"
        )
        == "1.0"
    )


def test_lines_of_others_are_still_there(lab: Lab) -> None:
    machine = lab.client.file("/etc/pip.conf").content_string
    assert "timeout = 42" in machine and "[install]\ncompile = no" in machine
    assert (
        "machine other.example.com login someone password else" in lab.client.file("/home/admin/.netrc").content_string
    )
    pypirc = lab.client.file("/home/admin/.pypirc").content_string
    assert "[other]\nrepository = https://other.example.com/" in pypirc
    assert "other" in pypirc.partition("index-servers")[2].partition("[")[0]
