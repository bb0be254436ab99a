"""A cluster's autoscaler: what it can start, and what it is starting.

A request holds until the next one replaces it. The autoscaler grants it as a whole or not at all, and says of one that
its node types can never hold that it is infeasible.
"""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import AutoscalingState, GetClusterStatusReply
from ray.experimental.internal_kv import internal_kv_get_gcs_client

log = logging.getLogger(__name__)
ANSWER_S = 30  # it looks every 5 s
RPC_S = 10

Bundle = Mapping[str, float]  # what one worker takes, under Ray's names: CPU, GPU, memory in bytes


@dataclass
class Autoscaler:
    """What starts nodes where they are asked for.

    asked: what the newest request was; since: the version of the cluster's state that first held it
    """

    asked: tuple[Bundle, ...] | None = field(default=None, init=False)
    since: int = field(default=0, init=False)

    @classmethod
    def of_cluster(cls) -> "Autoscaler | None":
        """Return the autoscaler of the cluster that this process is connected to, None where it has none.

        That of Ray's first version, which says of no request whether it is possible, counts as none.
        """
        return cls() if is_autoscaler_v2(fetch_from_server=True) else None

    def ask(self, bundles: Sequence[Bundle]) -> None:
        """Ask for room for all of these at the same time, instead of what was asked for before."""
        if self.asked != tuple(bundles):
            request_resources(bundles=[dict(bundle) for bundle in bundles])
            self.asked = tuple(bundles)
            self.since = _status().cluster_resource_state.cluster_resource_state_version

    def answer(self) -> bool | None:
        """Return whether its node types can hold what was asked for; None: it has not looked yet."""
        state = _status().autoscaling_state
        if state.last_seen_cluster_resource_state_version < self.since:
            return None
        return not state.infeasible_cluster_resource_constraints

    def can(self, bundles: Sequence[Bundle]) -> bool:
        """Ask, and wait for the answer; one that says nothing for half a minute can do nothing."""
        self.ask(bundles)
        until = time.monotonic() + ANSWER_S
        while (answer := self.answer()) is None and time.monotonic() < until:
            time.sleep(0.5)
        return bool(answer)

    def withdraw(self) -> None:
        """Take back what was asked for, so that nodes may be stopped."""
        if self.asked:
            self.ask(())

    def news(self) -> str:
        """Say what it is starting, and what of late it could not start."""
        return _news(_status().autoscaling_state)


def _status() -> GetClusterStatusReply:
    reply = GetClusterStatusReply()
    reply.ParseFromString(internal_kv_get_gcs_client().get_cluster_status(timeout_s=RPC_S))
    return reply


def _news(state: AutoscalingState) -> str:
    starting: Counter[str] = Counter()
    for request in state.pending_instance_requests:
        starting[request.ray_node_type_name] += request.count
    for instance in state.pending_instances:
        starting[instance.ray_node_type_name] += 1
    nodes = ", ".join(f"{count} x {name}" for name, count in sorted(starting.items()))
    news = f"the autoscaler is starting {nodes}" if starting else "the autoscaler is starting no node"
    failed = [f"{request.ray_node_type_name}: {request.reason}" for request in state.failed_instance_requests]
    return f"{news}; it could not start {failed[-1]}" if failed else news
