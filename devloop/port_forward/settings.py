"""The times and bounds of port forwarding, in one place, so that tests can give others."""

from __future__ import annotations

from devloop.base.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardSettings:
    """Times are in seconds, sizes in bytes."""

    # --- clients
    connect_timeout: float = 60.0  # that a client may wait for a pod
    park_timeout: float = 60.0  # that a client between two requests is kept without a pod
    most_connections: int = 1024
    crowded_pause: float = 0.2  # without accepting when there are no descriptors left
    linger: float = 2.0  # that a client has to take the end of an answer
    # A client that has closed looks like one that has only finished sending. When the pod has sent
    # last it has most likely closed; otherwise it waits for an answer, which may come in pieces.
    silence_after_answer: float = 1.0
    silence_after_request: float = 5.0
    half_closed_interval: float = 2.0  # between two looks whether a half-closed client exists
    chunk: int = 65536  # sent at once
    turn: int = 262144  # that one connection may move before the others have their turn
    room: int = 262144  # that may wait for a slow client
    keep: int = 1048576  # kept for another try while nobody has answered
    most_repeats: int = 3  # of a request that nobody answered: it may be what kills the pod
    # An answer to a safe request is kept back until it is whole, so that one whose process is
    # killed between its head and its body can be asked for once more.
    keep_back: float = 0.1
    keep_back_counted: float = 2.0  # where it says how long it is; an end is told a second late
    keep_back_replacing: float = 5.0  # when its process is about to go
    most_kept_back: int = 65536

    # --- streams to pods
    dial_timeout: float = 10.0
    dial_threads: int = 16
    ping_interval: float = 60.0  # between two signs of life on quiet streams
    trust: float = 0.1  # without a refusal, after which a stream is taken to lead somewhere
    quiet: float = 0.008  # in which most refusals come
    final_output: float = 0.5  # that a stream gets to end by itself after its pod has gone
    close_timeout: float = 0.3

    # --- a port where nobody answers: each try costs the node something, so the pause is a
    # multiple of what the last one took and a part of the time that it has been in vain
    shortest_pause: float = 0.01
    longest_pause: float = 1.0
    pause_per_cost: float = 3.0
    pause_per_outage: float = 1 / 30
    report_after: float = 2.0  # in vain until the reason is reported

    # --- a process that is replaced
    delete_grace: float = 0.1  # that a pod being deleted gets for what it was asked before
    old_process_timeout: float = 5.0  # that one which is to be replaced gets to go
    probe_timeout: float = 0.04  # within which a port refuses if nobody listens
    probe_pause: float = 0.03
    # For what part of the shortest of the last replacements nobody is dialled, and for how long at
    # most: the node has its hands full with the new container meanwhile.
    rest_share: float = 0.7
    longest_rest: float = 0.5
