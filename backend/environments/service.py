"""What is running where, from the cache while that is available."""

from __future__ import annotations

from dataclasses import dataclass

from backend.cache import Cache
from backend.database import Database
from backend.environments import repository
from backend.environments.schemas import Environments, Running

__all__ = ["ENVIRONMENTS", "EnvironmentService"]

ENVIRONMENTS = "environments"  # the name of the cached answer


@dataclass(frozen=True, slots=True)
class EnvironmentService:
    """What is running where, from the cache or else from PostgreSQL; without the cache it is only slower."""

    database: Database
    cache: Cache

    async def running(self, *, synthetic: bool = False) -> bytes:
        """Return the answer as JSON (`Environments`); with `synthetic`, with what the proof wrote, and uncached."""
        if synthetic:
            return await self._read(synthetic=True)
        cached = await self.cache.get(ENVIRONMENTS)
        if cached.value is not None:
            return cached.value
        answer = await self._read(synthetic=False)
        await self.cache.put(ENVIRONMENTS, cached, answer)
        return answer

    async def _read(self, *, synthetic: bool) -> bytes:
        async with self.database.lease() as connection:
            rows = await repository.running(connection, synthetic=synthetic)
        return Environments(items=[Running(**row) for row in rows]).model_dump_json().encode()
