from fastapi import FastAPI

app = FastAPI(title="minimal")


@app.get("/")
async def hello(name: str = "world") -> dict[str, str]:
    return {"hello": name}
