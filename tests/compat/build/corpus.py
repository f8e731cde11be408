"""Dockerfiles for the classic protocol: each feature by itself, and images of the real world.

``SHARED`` are those that Debian's dockerd (20.10, classic builder) builds too: both daemons must
make the same tree and the same configuration. The context is ``CONTEXT`` for every one of them.
"""

# ruff: noqa: E501 - a Dockerfile a line

from __future__ import annotations

CONTEXT: dict[str, tuple[int, str]] = {
    "a.txt": (0o644, "a\n"),
    "b.txt": (0o600, "b\n"),
    "run.sh": (0o755, "#!/bin/sh\necho run\n"),
    "dir/one": (0o644, "one\n"),
    "dir/sub/two": (0o640, "two\n"),
    "dir/sub/three.md": (0o644, "three\n"),
    "with space": (0o644, "space\n"),
    "ignored/secret": (0o644, "no\n"),
    "ignored/kept": (0o644, "yes\n"),
    "app/requirements.txt": (0o644, "flask==3\n"),
    "app/main.py": (0o644, "print('main')\n"),
    "web/package.json": (0o644, "{}\n"),
    "web/src/index.js": (0o644, "console.log(1)\n"),
    ".dockerignore": (0o644, "# comment\n.dockerignore\nignored/*\n!ignored/kept\n**/*.md\n"),
}

SHARED: dict[str, str] = {
    "from": "FROM busybox",
    "scratch": "FROM scratch\nCOPY a.txt /",
    "run-shell": "FROM busybox\nRUN echo hi > /f && mkdir -m 700 /d",
    "run-exec": 'FROM busybox\nRUN ["touch", "/f x"]',
    "run-user": "FROM busybox\nRUN chmod 777 /home\nUSER user\nRUN id -u > /home/id; id -g >> /home/id",
    "user-group": "FROM busybox\nRUN chmod 777 /home\nUSER user:extra\nRUN id > /home/id",
    "user-number": "FROM busybox\nRUN chmod 777 /home\nUSER 77:88\nRUN id -u > /home/id; id -g >> /home/id",
    "run-remove": "FROM busybox\nRUN rm -r /home && rm /etc/group",
    "run-replace": "FROM busybox\nRUN rm -r /home && mkdir /home && touch /home/new",
    "run-links": "FROM busybox\nRUN touch /f && ln /f /g && ln -s ../f /tmp/s",
    "run-modes": "FROM busybox\nRUN touch /f /s && chmod 6755 /s && chown 5:6 /f && mkfifo /p",
    "run-device": "FROM busybox\nRUN mknod /null c 1 3",
    "env": "FROM busybox\nENV A=1 B=$A C='x y' D=\"q\\\"z\"\nENV E=${A}2\nRUN env | grep '^[A-E]=' | sort > /e",
    "env-legacy": "FROM busybox\nENV KEY several words here\nRUN echo $KEY > /f",
    "env-override": "FROM busybox\nENV A=1\nENV A=2 B=${A}3\nENV PATH=/x:$PATH",
    "env-modifiers": "FROM busybox\nENV A=${X:-def} B=${X:+alt} C=${PATH:+set} D=\\$A E='$A'",
    "env-unset": "FROM busybox\nENV A=$NOPE B=x${NOPE}y",
    "arg": "FROM busybox\nARG V=one\nRUN echo $V > /v\nENV W=$V",
    "arg-empty": 'FROM busybox\nARG V\nRUN echo "[$V]" > /v',
    "arg-env": "FROM busybox\nARG V=arg\nENV V=env\nRUN echo $V > /v",
    "arg-before": 'FROM busybox\nRUN echo "[$V]" > /v\nARG V=1\nRUN echo "[$V]" >> /v',
    "arg-global": "ARG BASE=busybox\nFROM $BASE\nARG BASE\nRUN echo $BASE > /v",
    "arg-global-unpulled": 'ARG X=1\nFROM busybox\nRUN echo "[$X]" > /v',
    "arg-global-override": 'ARG X=1\nFROM busybox\nARG X=2\nRUN echo "[$X]" > /v',
    "arg-passed": "FROM busybox\nARG PASSED=default\nRUN echo $PASSED > /v\nLABEL p=$PASSED",
    "arg-proxy": 'FROM busybox\nRUN echo "$HTTP_PROXY" > /v',
    "label": 'FROM busybox\nLABEL a=1 b="x y" "c d"=e\nLABEL a=2 f=multi\\\nline',
    "maintainer": "FROM busybox\nMAINTAINER some one",
    "maintainer-quotes": "FROM busybox\nENV E=1\nMAINTAINER some \"one\" $E 'x'",
    "expose": "FROM busybox\nENV P=90\nEXPOSE 80 443/tcp 53/udp $P 7000-7002",
    "volume": 'FROM busybox\nVOLUME /v /w\nVOLUME ["/x y"]',
    "cmd-shell": "FROM busybox\nCMD echo $PATH",
    "cmd-exec": 'FROM busybox\nCMD ["a", "b"]\nCMD ["c"]',
    "entrypoint": 'FROM busybox\nCMD ["x"]\nENTRYPOINT ["e"]',
    "entrypoint-clears": 'FROM busybox\nENTRYPOINT ["e"]',
    "entrypoint-shell": "FROM busybox\nENTRYPOINT exec top -b",
    "cmd-empty": "FROM busybox\nCMD []\nENTRYPOINT []",
    "workdir": "FROM busybox\nWORKDIR /a\nWORKDIR b/c\nWORKDIR ../d\nRUN pwd > f",
    "workdir-variable": "FROM busybox\nENV D=/srv/app\nWORKDIR $D/x\nCOPY a.txt .",
    "workdir-relative": "FROM busybox\nWORKDIR rel",
    "shell": 'FROM busybox\nSHELL ["/bin/busybox", "ash", "-ec"]\nRUN echo $0 > /f\nCMD x y',
    "stopsignal": "FROM busybox\nSTOPSIGNAL SIGINT",
    "stopsignal-number": "FROM busybox\nENV S=9\nSTOPSIGNAL $S",
    "healthcheck": "FROM busybox\nHEALTHCHECK --interval=5s --timeout=3s --start-period=1m --retries=2 CMD true || exit 1",
    "healthcheck-exec": 'FROM busybox\nHEALTHCHECK CMD ["true"]',
    "healthcheck-none": "FROM busybox\nHEALTHCHECK NONE",
    "onbuild": "FROM busybox\nONBUILD RUN touch /x\nONBUILD COPY a.txt /",
    "copy-file": "FROM busybox\nCOPY a.txt /x",
    "copy-to-directory": "FROM busybox\nCOPY a.txt b.txt /d/",
    "copy-directory": "FROM busybox\nCOPY dir /d",
    "copy-directory-into": "FROM busybox\nCOPY dir /tmp/",
    "copy-all": "FROM scratch\nCOPY . /ctx/",
    "copy-glob": "FROM busybox\nCOPY *.txt r?n.sh /g/",
    "copy-glob-set": "FROM busybox\nCOPY [ab].txt /g/",
    "copy-json": 'FROM busybox\nCOPY ["with space", "/w s/"]',
    "copy-chown": "FROM busybox\nCOPY --chown=user:extra dir /d\nCOPY --chown=7 a.txt /a\nCOPY --chown=user b.txt /b",
    "copy-relative": "FROM busybox\nWORKDIR /w\nCOPY a.txt sub/\nCOPY b.txt .",
    "copy-over": "FROM busybox\nCOPY a.txt /f\nCOPY b.txt /f",
    "copy-through-link": "FROM busybox\nRUN mkdir /real && ln -s /real /link\nCOPY a.txt /link/",
    "add-file": "FROM busybox\nADD a.txt /x/y\nADD dir /z/",
    "add-archive": "FROM busybox\nADD archive.tar.gz /un/\nCOPY archive.tar.gz /kept/",
    "stages": "FROM busybox AS one\nRUN echo 1 > /o\nFROM busybox\nCOPY --from=one /o /from\nCOPY --from=0 /o /zero/",
    "stage-from-stage": "FROM busybox AS base\nENV A=1\nWORKDIR /b\nFROM base AS next\nRUN echo $A > f",
    "stage-arg": 'FROM busybox AS base\nARG A=7\nFROM busybox\nARG A\nRUN echo "[$A]" > /f',
    "copy-from-image": "FROM scratch\nCOPY --from=busybox /etc/passwd /p",
    "copy-from-directory": "FROM busybox AS s\nRUN mkdir -p /d/e && touch /d/e/f && ln -s e /d/l\nFROM busybox\nCOPY --from=s /d /t",
    "escape": "# escape=`\nFROM busybox\nRUN echo a `\n  b > /f\nENV A=c:\\x",
    "continuation": "FROM busybox\nRUN echo a && \\\n# comment\n   echo b > /f\n   # indented comment\nLABEL x=y",
    "lower-case": 'from busybox\nrun touch /f\ncopy a.txt /\ncmd ["x"]',
    "python-app": 'FROM busybox AS build\nWORKDIR /src\nCOPY app/requirements.txt .\nRUN sed s/=/-/ requirements.txt > wheels\nFROM busybox\nENV PYTHONUNBUFFERED=1\nWORKDIR /app\nRUN echo app:x:999:999::/app:/bin/sh >> /etc/passwd\nCOPY --from=build /src/wheels /wheels\nCOPY --chown=999 app/ .\nUSER 999\nEXPOSE 8000\nHEALTHCHECK CMD wget -qO- localhost:8000\nENTRYPOINT ["python"]\nCMD ["main.py"]',
    "node-app": 'FROM busybox AS deps\nWORKDIR /web\nCOPY web/package*.json ./\nRUN mkdir -p node_modules/x && echo m > node_modules/x/i.js\nFROM deps AS build\nCOPY web/ .\nRUN mkdir dist && cat src/*.js > dist/app.js\nFROM busybox\nCOPY --from=build /web/dist /usr/share/html\nEXPOSE 80\nSTOPSIGNAL SIGQUIT\nCMD ["httpd", "-f"]',
    "static-binary": 'FROM busybox AS go\nARG VERSION=dev\nRUN mkdir /out && echo $VERSION > /out/app && chmod +x /out/app\nFROM scratch\nLABEL version=1\nCOPY --from=go /out/app /app\nCOPY --from=go /etc/passwd /etc/passwd\nUSER 1000:1000\nENTRYPOINT ["/app"]',
    "service": 'FROM busybox\nLABEL org.opencontainers.image.title=service\nENV LANG=C.UTF-8\nRUN set -eux; mkdir -p /var/lib/svc /docker-entrypoint.d; chown -R 1000:1000 /var/lib/svc; chmod 1777 /var/lib/svc\nCOPY run.sh /usr/local/bin/\nVOLUME /var/lib/svc\nENTRYPOINT ["run.sh"]\nCMD ["svc"]',
}

# What the classic builder has not: Dockerfile -> path -> (mode, uid, gid, contents).
Entry = tuple[int, int, int, str]
MODERN: dict[str, tuple[str, dict[str, Entry]]] = {
    "heredoc-run": (
        "FROM busybox\nRUN <<EOF\necho 1 > /f\necho 2 >> /f\nEOF",
        {"f": (0o644, 0, 0, "1\n2\n")},
    ),
    "heredoc-shebang": (
        "FROM busybox\nRUN <<EOF\n#!/bin/ash\necho $0 | grep -c / > /f\nEOF",
        {"f": (0o644, 0, 0, "1\n")},
    ),
    "heredoc-command": (
        "FROM busybox\nRUN <<EOF cat > /f\nx $y\nEOF",
        {"f": (0o644, 0, 0, "x \n")},
    ),
    "heredoc-copy": (
        'FROM busybox\nENV V=1\nCOPY --chmod=640 --chown=3:4 <<A <<-"B" /d/\nv=$V\nA\n\tv=$V\nB',
        {"d/A": (0o640, 3, 4, "v=1\n"), "d/B": (0o640, 3, 4, "v=$V\n")},
    ),
    "chmod": (
        "FROM busybox\nCOPY --chmod=700 a.txt /x\nCOPY --chmod=u=rwX,go=rX a.txt /y",
        {"x": (0o700, 0, 0, "a\n"), "y": (0o644, 0, 0, "a\n")},
    ),
    "link": ("FROM busybox\nCOPY --link a.txt /new/x", {"new/x": (0o644, 0, 0, "a\n")}),
    "parents": (
        "FROM scratch\nCOPY --parents dir/./sub/two app/main.py /p/",
        {"p/sub/two": (0o640, 0, 0, "two\n"), "p/app/main.py": (0o644, 0, 0, "print('main')\n")},
    ),
    "exclude": (
        "FROM scratch\nCOPY --exclude=sub dir /d",
        {"d/one": (0o644, 0, 0, "one\n"), "d/sub/two": (0, 0, 0, "")},
    ),
    "mount-bind": (
        "FROM busybox\nRUN --mount=target=/m cat /m/a.txt > /f",
        {"f": (0o644, 0, 0, "a\n"), "m/a.txt": (0, 0, 0, "")},
    ),
    "mount-from": (
        "FROM busybox AS s\nRUN echo s > /s\nFROM busybox\nRUN --mount=from=s,source=/s,target=/m cp /m /f",
        {"f": (0o644, 0, 0, "s\n")},
    ),
    "mount-cache": (
        "FROM busybox\nRUN --mount=type=cache,target=/c echo x > /c/k\n"
        "RUN --mount=type=cache,target=/c cp /c/k /f",
        {"f": (0o644, 0, 0, "x\n"), "c/k": (0, 0, 0, "")},
    ),
    "mount-tmpfs": (
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t touch /t/x && touch /f",
        {"f": (0o644, 0, 0, ""), "t/x": (0, 0, 0, "")},
    ),
    "network-none": ("FROM busybox\nRUN --network=none touch /f", {"f": (0o644, 0, 0, "")}),
    "expansion": (
        "FROM busybox\nENV V=a.b.c\nENV W=${V#*.} X=${V%%.*} Y=${V//./-}\nRUN echo $W $X $Y > /f",
        {"f": (0o644, 0, 0, "b.c a a-b-c\n")},
    ),
    "platform-args": (
        "FROM busybox\nARG TARGETOS\nRUN echo $TARGETOS > /f",
        {"f": (0o644, 0, 0, "linux\n")},
    ),
    "target-stage": (
        "FROM busybox AS last\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE > /f",
        {"f": (0o644, 0, 0, "last\n")},
    ),
    "target-stage-unnamed": (
        "FROM busybox\nARG TARGETSTAGE\nRUN echo $TARGETSTAGE > /f",
        {"f": (0o644, 0, 0, "default\n")},
    ),
}

# What must be refused: Dockerfile -> part of what the command line prints.
REFUSED: dict[str, tuple[str, str]] = {
    "device": ("FROM busybox\nRUN --device=vendor/class true", "device"),
    "missing-file": ("FROM busybox\nCOPY nothing /", '"/nothing": not found'),
    "unknown-instruction": ("FROM busybox\nFOO bar", "unknown instruction: FOO"),
    "unknown-flag": ("FROM busybox\nCOPY --nope a.txt /", "unknown flag: --nope"),
    "no-from": ("RUN true", "no build stage in current context"),
    "failing-run": ("FROM busybox\nRUN exit 3", "returned a non-zero code: 3"),
    "required": ('FROM busybox\nENV A="${X:?must be set}"', "must be set"),
    "missing-secret": (
        "FROM busybox\nRUN --mount=type=secret,id=s,required=true true",
        "secret",
    ),
}
