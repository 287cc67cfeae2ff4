"""Another gateway's side of a pool, as a program that can be killed: `other_gateway.py STORE`."""

import asyncio
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from live_pool import GatewaySide


async def main() -> None:
    async with GatewaySide(Path(sys.argv[1]), name="other") as side:
        gateway = await side.slot()
        servable, _ = await gateway.load(delay_us=1000)
        await gateway.run(servable, b"x")
        print("running", flush=True)
        while True:
            await gateway.run(servable, b"x")


asyncio.run(main())
