"""Write many files of a host in one go: as tasks of their own, each would cost a third of a second, also when nothing changes."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule  # type: ignore[import-untyped]

DOCUMENTATION = r"""
module: host_files
short_description: Make a directory and the files in it what they should be
description:
  - Every file is replaced atomically, in the order given, with its owner and mode from the first moment on.
  - Directories above are made as needed, with mode 0755; those that there are stay as they are.
options:
  path: {type: path, required: true, description: The directory.}
  owner: {type: str, description: Owner of the directory; without it it stays as it is.}
  group: {type: str, description: Group of the directory, likewise.}
  mode: {type: raw, description: Mode of the directory, likewise; a new one gets 0755.}
  directories:
    description: Directories in it, whose content is left alone; name, owner, group and mode.
    type: list
    elements: dict
  files:
    description: Files in it; name, content, owner, group and mode.
    type: list
    elements: dict
  only:
    description: Directories in it where no other file may be than those above.
    type: list
    elements: str
  validate:
    description:
      - Command that says whether the files are good, before one of them is put into place. C(%s) is a directory that holds them.
      - Runs when something changes, and not in check mode.
    type: str
"""

DIRECTORY = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "raw", "default": "0755"},
}
FILE = {**DIRECTORY, "mode": {"type": "raw", "default": "0644"}, "content": {"type": "str", "required": True}}


class Module(AnsibleModule):  # type: ignore[misc]
    def _log_invocation(self) -> None:
        """Files do not belong into the host's journal."""


class Tree:
    """The directory under way, and what has changed in it."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.root: str = module.params["path"]
        self.diffs: list[dict[str, Any]] = []
        self.changed = False

    def path(self, name: str) -> str:
        return os.path.normpath(os.path.join(self.root, name))

    def attributes(self, path: str, wanted: dict[str, Any], current: str = "") -> None:
        """Owner, group, mode and the SELinux context that belongs to the path; `current` is where it is as yet."""
        attributes = self.module.load_file_common_arguments(wanted, path)
        attributes["path"] = current or path
        difference: dict[str, Any] = {}
        if self.module.set_fs_attributes_if_different(attributes, False, difference):
            self.changed = True
            if not current:
                self.diffs.append({**difference, "before_header": path, "after_header": path})

    def directory(self, name: str, wanted: dict[str, Any]) -> None:
        path = self.path(name)
        if not os.path.isdir(path):
            above = os.path.dirname(path)
            if not os.path.isdir(above):
                self.directory(above, {})
            self.changed = True
            self.diffs.append({"before": "", "after": "directory\n", "after_header": path})
            if not self.module.check_mode:
                os.mkdir(path, 0o700)
            wanted = {**wanted, "mode": wanted.get("mode") or "0755"}
        self.attributes(path, wanted)

    def stale(self, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The files whose content is not what it should be; `before` is what it is, None for nothing."""
        found = []
        for file in files:
            try:
                with open(self.path(file["name"]), "rb") as present:
                    before = present.read()
            except (FileNotFoundError, NotADirectoryError):
                before = None
            if before != file["content"].encode():
                found.append({**file, "before": before})
        return found

    def validate(self, command: str, files: list[dict[str, Any]]) -> None:
        staged = tempfile.mkdtemp(dir=self.module.tmpdir)
        for file in files:
            path = os.path.join(staged, file["name"].lstrip("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as new:
                new.write(file["content"].encode())
        status, output, errors = self.module.run_command([part.replace("%s", staged) for part in shlex.split(command)])
        shutil.rmtree(staged)
        if status != 0:
            self.module.fail_json(
                msg=f"The new files were not put into place: {errors or output}", command=command, rc=status
            )

    def write(self, file: dict[str, Any]) -> None:
        path = self.path(file["name"])
        before = (file["before"] or b"").decode("utf-8", "replace")
        self.diffs.append({"before": before, "after": file["content"], "before_header": path, "after_header": path})
        self.changed = True
        above = os.path.dirname(path)
        if not os.path.isdir(above):
            self.directory(above, {})
        if self.module.check_mode:
            return
        descriptor, temporary = tempfile.mkstemp(prefix=".host_files.", dir=above)
        try:
            with open(descriptor, "wb") as new:
                new.write(file["content"].encode())
                new.flush()
                os.fsync(new.fileno())
            self.attributes(path, file, temporary)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def remove_others(self, directory: str, keep: set[str]) -> None:
        for above, _, names in os.walk(self.path(directory), topdown=False):
            for path in (os.path.join(above, name) for name in names):
                if path not in keep:
                    self.changed = True
                    self.diffs.append({"before": "present\n", "after": "", "before_header": path})
                    if not self.module.check_mode:
                        os.unlink(path)
            if not self.module.check_mode and not os.listdir(above):
                os.rmdir(above)


def main() -> None:
    module = Module(
        argument_spec={
            "path": {"type": "path", "required": True},
            "directories": {"type": "list", "elements": "dict", "options": DIRECTORY, "default": []},
            "files": {"type": "list", "elements": "dict", "options": FILE, "default": []},
            "only": {"type": "list", "elements": "str", "default": []},
            "validate": {"type": "str"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    tree = Tree(module)
    try:
        stale = tree.stale(wanted["files"])
        if wanted["validate"] and stale and not module.check_mode:
            tree.validate(wanted["validate"], wanted["files"])
        tree.directory("", wanted)
        for directory in wanted["directories"]:
            tree.directory(directory["name"], directory)
        for file in stale:
            tree.write(file)
        for file in wanted["files"]:
            tree.attributes(tree.path(file["name"]), file)
        for name in wanted["only"]:
            tree.remove_others(name, {tree.path(file["name"]) for file in wanted["files"]})
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    module.exit_json(changed=tree.changed, diff=tree.diffs, files=[file["name"] for file in stale])


if __name__ == "__main__":
    main()
