"""A whole router as one folder, here or on the hub: config.json, model.safetensors and the encoder's files."""

from gpu_select.pretrained.config import CONFIG_FILE, is_saved
from gpu_select.pretrained.hub import HubOptions, download, is_hub_id, upload
from gpu_select.pretrained.loading import load_saved
from gpu_select.pretrained.saving import save_router

__all__ = ["CONFIG_FILE", "HubOptions", "download", "is_hub_id", "is_saved", "load_saved", "save_router", "upload"]
