"""A home that offers nothing (--capacity 0): clients read and write through it, and it keeps none of it."""
from conftest import Home, noise, sha, until


def test_a_gateway_takes_and_gives_and_keeps_nothing(cluster):
    gateway = Home(cluster.folder, "home-gate", extra=["--capacity", "0"])
    gateway.start(cluster.homes[0].ctl("invite")["invite"])
    cluster.homes.append(gateway)
    try:
        s3 = cluster.s3(3)
        s3.create_bucket(Bucket="through")
        bodies = {"small": b"x" * 100, "inline": noise(60_000, "inline"), "blocks": noise(3_300_000, "blocks")}
        for key, body in bodies.items():
            s3.put_object(Bucket="through", Key=key, Body=body)
        part = noise(5 << 20, "part")
        upload = s3.create_multipart_upload(Bucket="through", Key="parts")["UploadId"]
        etag = s3.upload_part(Bucket="through", Key="parts", UploadId=upload, PartNumber=1, Body=part)["ETag"]
        s3.complete_multipart_upload(Bucket="through", Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
        s3.copy_object(Bucket="through", Key="copy", CopySource="through/blocks")
        bodies |= {"parts": part, "copy": bodies["blocks"]}
        for key, body in bodies.items():
            for at in (0, 3):
                assert sha(cluster.s3(at).get_object(Bucket="through", Key=key)["Body"].read()) == sha(body), (key, at)
        assert gateway.blocks() == []
        mine = next(n for n in gateway.status()["nodes"] if n["self"])
        assert mine["capacity"] == 0 and mine["partitions"] == 0
        cluster.homes[1].kill()
        s3.put_object(Bucket="through", Key="dark", Body=bodies["blocks"])
        assert sha(s3.get_object(Bucket="through", Key="dark")["Body"].read()) == sha(bodies["blocks"])
    finally:
        cluster.homes[1].start()
        gateway.stop()
        cluster.homes.pop()
    until("the others are whole", lambda: all(sum(n["up"] for n in h.status()["nodes"]) == 3 for h in cluster.homes), 30)
