#!/usr/bin/env python3
"""How the trading terminal feels, measured in a pseudo-terminal of 120x40 against a stack of its own.

    python3 tests/feel.py FAFNIR [SECONDS]

Prints the time from the start of the process to its first painted screen, from a key to the first byte of its answer,
and its CPU and memory over SECONDS (20) beside the simulated market. Needs a quiet machine; only loopback, one scratch
directory, every wait bounded."""
import fcntl, json, os, pty, select, shutil, signal, struct, subprocess, sys, tempfile, termios, time

FAFNIR = os.path.abspath(sys.argv[1])
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 20.0
KEYS, WAIT = 200, 30.0
TITLES = (b"Ladder", b"Time & sales", b"Watchlist", b"Positions")


def read(fd, until):
    """What comes before a moment; empty where nothing does."""
    ready, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
    return os.read(fd, 65536) if ready else b""


def drain(fd, quiet=0.05, most=2.0):
    end = time.monotonic() + most
    while time.monotonic() < end and read(fd, time.monotonic() + quiet):
        pass


def spawn(arguments, environment):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(arguments[0], arguments, environment)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    return pid, fd


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid):
    return int(next(l for l in open(f"/proc/{pid}/status") if l.startswith("VmRSS")).split()[1]) / 1024


def paint(arguments, environment):
    """The first frame with panels in it. Cells that stood in the screen before are not sent again, so that a title may have
    holes: any of them tells."""
    start = time.monotonic()
    pid, fd = spawn(arguments, environment)
    seen = b""
    while not any(title in seen for title in TITLES):
        piece = read(fd, start + WAIT)
        if not piece:
            sys.exit(f"no screen within {WAIT} s: {seen[-400:]!r}")
        seen += piece
    return pid, fd, (time.monotonic() - start) * 1000


def main():
    scratch = tempfile.mkdtemp(prefix="fafnir-feel-")
    environment = {"HOME": scratch, "TERM": "xterm-256color", "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}
    data = ["--data-dir", os.path.join(scratch, "data")]
    up = subprocess.run([FAFNIR, "up", "--detach", "--json", "--ports", "auto", *data], env=environment,
                        cwd=scratch, capture_output=True, text=True, timeout=120)
    try:
        json.loads(up.stdout)
        trade = [FAFNIR, "trade", "--demo", "--symbol", "AAPL", *data]
        paints = []
        for _ in range(5):
            pid, fd, took = paint(trade, environment)
            paints.append(took)
            drain(fd, most=1.0)
            os.write(fd, b"\x1bq")
            drain(fd)
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            os.close(fd)
        pid, fd, _ = paint(trade, environment)
        drain(fd, most=3.0)
        delays = []
        for at in range(KEYS):
            drain(fd, quiet=0.012, most=0.5)
            os.write(fd, b"1" if at % 2 else b"2")
            sent = time.monotonic()
            if read(fd, sent + 1.0):
                delays.append((time.monotonic() - sent) * 1000)
        before, start = cpu_seconds(pid), time.monotonic()
        while time.monotonic() < start + SECONDS:
            read(fd, start + SECONDS)
        share = (cpu_seconds(pid) - before) / (time.monotonic() - start) * 100
        delays.sort()
        print(f"first paint, ms: {' '.join(f'{p:.0f}' for p in sorted(paints))}")
        print(f"key to output, ms: p50 {delays[len(delays) // 2]:.2f}  p99 {delays[len(delays) * 99 // 100]:.2f}  of {len(delays)}")
        print(f"CPU over {SECONDS:.0f} s: {share:.2f} %   resident: {resident_mib(pid):.1f} MiB")
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    finally:
        subprocess.run([FAFNIR, "down", *data], env=environment, cwd=scratch, capture_output=True, timeout=60)
        shutil.rmtree(scratch, ignore_errors=True)


main()
