"""Settings of the services and the client: defaults < TOML file < ``CATERVA2_*`` environment < flags.

Each service has a section in the file and a class here; a field is the same word in both, on the command
line (``--settle-s``) and in the environment (``CATERVA2_PUBLISHER_SETTLE_S``). The few that are shared by all
parts of a group (`SHARED`) stand at the top of the file and have short names in the environment.
"""

from caterva2.config.loading import SHARED, Setting, config_file, explain, load
from caterva2.config.settings import (
    BrokerSettings,
    ClientSettings,
    PublisherSettings,
    ServiceSettings,
    SubscriberSettings,
)
from caterva2.config.values import Address, Token, parse_address, parse_size

__all__ = [
    "SHARED",
    "Address",
    "BrokerSettings",
    "ClientSettings",
    "PublisherSettings",
    "ServiceSettings",
    "Setting",
    "SubscriberSettings",
    "Token",
    "config_file",
    "explain",
    "load",
    "parse_address",
    "parse_size",
]
