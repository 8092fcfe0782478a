"""A store that keeps count of what is asked of it: each entry is one round trip."""

from collections.abc import Sequence
from typing import ClassVar

from app.storage.base import (
    AdmissionRequest,
    BudgetState,
    DayBook,
    Decision,
    Settlement,
    Store,
    StoreSettings,
    TopUp,
)


class CountedStore(Store):
    """The port in front of a real store. `wanted_nano_usd` is what was to be set aside, in turn."""

    name: ClassVar[str] = "counted"
    settings_type: ClassVar[type[StoreSettings]] = StoreSettings
    shared_between_processes: ClassVar[bool] = False

    def __init__(self, store: Store) -> None:
        self._store = store
        self.trips: list[str] = []
        self.wanted_nano_usd: list[int] = []

    async def open(self) -> None:
        await self._store.open()

    async def admit(self, request: AdmissionRequest, *, now: float | None = None) -> Decision:
        self.trips.append("admit")
        if request.reservation is not None:
            self.wanted_nano_usd.append(request.reservation.amount_nano_usd)
        return await self._store.admit(request, now=now)

    async def top_up(self, request: TopUp) -> bool:
        self.trips.append("top_up")
        self.wanted_nano_usd.append(request.amount_nano_usd)
        return await self._store.top_up(request)

    async def settle(
        self, settlement: Settlement, *, now: float | None = None
    ) -> BudgetState | None:
        self.trips.append("settle")
        return await self._store.settle(settlement, now=now)

    async def day_book(self, day: str) -> DayBook:
        return await self._store.day_book(day)

    async def read_summary(
        self, keys: Sequence[str], *, now: float | None = None
    ) -> tuple[int, str] | None:
        self.trips.append("read_summary")
        return await self._store.read_summary(keys, now=now)

    async def write_summary(
        self, key: str, text: str, ttl_seconds: float, *, now: float | None = None
    ) -> None:
        self.trips.append("write_summary")
        await self._store.write_summary(key, text, ttl_seconds, now=now)

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()
