"""An OpenAI-compatible HTTP server around the router: requests for "auto" are routed, and sent to who answers them."""

from __future__ import annotations

from gpu_select.gateway.event_log import write_json_lines
from gpu_select.gateway.server import serve
from gpu_select.gateway.service import load_service

__all__ = ["load_service", "serve", "write_json_lines"]
