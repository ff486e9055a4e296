from __future__ import annotations

import pytest

from devloop.base.net_proxy import is_loopback, proxy_for

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("[::1]", True),
        ("registry", False),
        ("localhost.example", False),
        ("127.example", False),
    ],
)
def test_what_is_this_computer(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# After golang.org/x/net/http/httpproxy's own table.
@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("https://k8s.corp:6443", "", True),
        ("https://localhost:6443", "", False),
        ("https://127.0.0.2:6443", "", False),
        ("https://[::1]:6443", "", False),
        ("https://k8s.corp:6443", "*", False),
        ("https://k8s.corp:6443", "other, *", False),
        ("https://k8s.corp:6443", "corp", False),
        ("https://K8S.corp:6443", ".CORP", False),
        ("https://k8s.corp:6443", "*.corp", False),
        ("https://corp:6443", ".corp", True),
        ("https://corp:6443", "corp", False),
        ("https://notcorp:6443", "corp", True),
        ("https://k8s.corp:6443", "corp:6443", False),
        ("https://k8s.corp:6443", "corp:443", True),
        ("https://k8s.corp", "corp:443", False),
        ("http://k8s.corp", "corp:80", False),
        ("https://10.1.2.3:6443", "10.0.0.0/8", False),
        ("https://11.1.2.3:6443", "10.0.0.0/8", True),
        ("https://k8s.corp:6443", "10.0.0.0/8", True),
        ("https://10.1.2.3:6443", "10.1.2.3", False),
        ("https://10.1.2.3:6443", "10.1.2.3:6443", False),
        ("https://10.1.2.3:6443", "10.1.2.3:80", True),
        ("https://10.1.2.30:6443", "10.1.2.3", True),
        ("https://[fd00::1]:6443", "fd00::/8", False),
        ("https://[fd00::1]:6443", "fd00::1", False),
        ("https://[fd00::1]:6443", "[fd00:0::1]:6443", False),
        ("https://[fd00::1]:6443", "[fd00::1]:80", True),
        ("https://k8s.corp:6443", ":6443", True),
        ("https://k8s.corp:6443", "10.0.0.0/99,", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(url: str, no_proxy: str, proxied: bool) -> None:
    env = {"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY, "NO_PROXY": no_proxy}
    assert proxy_for(url, env) == (PROXY if proxied else "")


def test_the_scheme_chooses_the_variable_and_a_proxy_without_scheme_is_plain() -> None:
    env = {"HTTPS_PROXY": "", "https_proxy": "secure:1", "HTTP_PROXY": "http://plain:2"}
    assert proxy_for("https://k8s.corp", env) == "http://secure:1"
    assert proxy_for("http://k8s.corp", env) == "http://plain:2"
    assert proxy_for("https://k8s.corp", {"HTTP_PROXY": PROXY}) == ""
    assert proxy_for("https://k8s.corp", env | {"no_proxy": "corp"}) == ""
