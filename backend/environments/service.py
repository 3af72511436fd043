"""What runs where now, from the cache while that is up."""

from __future__ import annotations

from dataclasses import dataclass

from backend.cache import Cache
from backend.database import Database
from backend.environments import repository
from backend.environments.schemas import Environments, Running

__all__ = ["ENVIRONMENTS", "EnvironmentService"]

ENVIRONMENTS = "environments"  # the cached answer's name


@dataclass(frozen=True, slots=True)
class EnvironmentService:
    """Reads the cache, else PostgreSQL; a cache that is down costs nothing but its speed."""

    database: Database
    cache: Cache

    async def running(self) -> bytes:
        """The answer as JSON (`Environments`)."""
        found = await self.cache.get(ENVIRONMENTS)
        if found.value is not None:
            return found.value
        async with self.database.lease() as connection:
            rows = await repository.running(connection)
        answer = Environments(items=[Running(**row) for row in rows]).model_dump_json().encode()
        await self.cache.put(ENVIRONMENTS, found, answer)
        return answer
