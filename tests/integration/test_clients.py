"""Real clients, Debian's packages, against three real homes: what one of them writes, every one of them reads."""
import base64
import datetime
import hashlib
import os
import pathlib
import shutil
import subprocess
import time

import botocore.exceptions
import botocore.session
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest

from conftest import noise, sha, tree_sums, until


def refused(call, code, status=None):
    with pytest.raises(botocore.exceptions.ClientError) as e:
        call()
    assert e.value.response["Error"]["Code"] == code, e.value.response
    if status:
        assert e.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    return e.value.response


@pytest.fixture
def files(tmp_path):
    """A small tree with names that clients like to get wrong."""
    root = tmp_path / "files"
    for name, size in {"a.txt": 5, "empty": 0, "sub/deep/b.bin": 70_000, "sub/ü ñ+&%.jpg": 300_000, "sub/large.bin": 20 << 20, "z (1).txt": 4096}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(noise(size, name))
    return root


# ---- awscli

def test_awscli(cluster, tool, files, tmp_path):
    def aws(*args, **more):
        return tool("/usr/bin/aws", "--endpoint-url", cluster.homes[0].url, *args, **more)

    aws("s3", "mb", "s3://aws-cli")
    aws("s3", "cp", files / "a.txt", "s3://aws-cli/one/a.txt")
    aws("s3", "cp", files / "sub/large.bin", "s3://aws-cli/large.bin")
    etag = cluster.s3(1).head_object(Bucket="aws-cli", Key="large.bin")["ETag"]
    assert etag.endswith('-3"'), f"20 MB go in three parts of 8 MiB: {etag}"
    aws("s3", "cp", "s3://aws-cli/large.bin", tmp_path / "back.bin")
    assert sha((tmp_path / "back.bin").read_bytes()) == sha((files / "sub/large.bin").read_bytes())
    aws("s3", "sync", files, "s3://aws-cli/tree")
    assert aws("s3", "sync", files, "s3://aws-cli/tree").strip() == "", "a second sync has nothing to do"
    aws("s3", "sync", "s3://aws-cli/tree", tmp_path / "back")
    assert tree_sums(tmp_path / "back") == tree_sums(files)
    aws("s3", "mv", "s3://aws-cli/large.bin", "s3://aws-cli/moved.bin")
    aws("s3", "cp", "s3://aws-cli/moved.bin", tmp_path / "moved.bin")
    assert sha((tmp_path / "moved.bin").read_bytes()) == sha((files / "sub/large.bin").read_bytes())
    assert "large.bin" not in aws("s3", "ls", "s3://aws-cli/")
    listed = aws("s3", "ls", "--recursive", "s3://aws-cli/")
    assert "tree/sub/ü ñ+&%.jpg" in listed and "moved.bin" in listed and len(listed.splitlines()) == 2 + len(tree_sums(files))
    link = aws("s3", "presign", "s3://aws-cli/one/a.txt").strip()
    tool("/usr/bin/curl", "-fsS", "-o", tmp_path / "linked", link)
    assert (tmp_path / "linked").read_bytes() == (files / "a.txt").read_bytes()
    broken = link[:-1] + ("1" if link.endswith("0") else "0")
    assert "<Code>SignatureDoesNotMatch</Code>" in tool("/usr/bin/curl", "-sS", broken)
    aws("s3", "rm", "--recursive", "s3://aws-cli")
    aws("s3", "rb", "s3://aws-cli")
    refused(lambda: cluster.s3(2).head_bucket(Bucket="aws-cli"), "404")


# ---- boto3

@pytest.fixture
def bucket(cluster, request):
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()
    cluster.s3().create_bucket(Bucket=name)
    return name


def test_objects_and_metadata(cluster, bucket):
    one, two = cluster.s3(0), cluster.s3(1)
    data = noise(3_000_000, 1)
    put = one.put_object(Bucket=bucket, Key="k/ä b", Body=data, ContentType="image/jpeg", CacheControl="max-age=60", ContentLanguage="de",
                         ContentDisposition="inline", Metadata={"camera": "leica", "place": "lyon"})
    assert put["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    got = two.get_object(Bucket=bucket, Key="k/ä b")
    assert sha(got["Body"].read()) == sha(data)
    assert (got["ContentType"], got["CacheControl"], got["ContentLanguage"], got["ContentDisposition"]) == ("image/jpeg", "max-age=60", "de", "inline")
    assert got["Metadata"] == {"camera": "leica", "place": "lyon"} and got["ETag"] == put["ETag"]
    head = two.head_object(Bucket=bucket, Key="k/ä b")
    assert head["ContentLength"] == len(data) and abs((head["LastModified"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) < 60
    one.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert two.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""
    long = "x/" * 511 + "yz"
    one.put_object(Bucket=bucket, Key=long, Body=b"long")
    assert two.get_object(Bucket=bucket, Key=long)["Body"].read() == b"long"
    refused(lambda: one.put_object(Bucket=bucket, Key=long + "!", Body=b""), "KeyTooLongError", 400)
    refused(lambda: two.get_object(Bucket=bucket, Key="nothing"), "NoSuchKey", 404)
    refused(lambda: two.get_object(Bucket="no-such-bucket-here", Key="nothing"), "NoSuchBucket", 404)
    one.delete_object(Bucket=bucket, Key="empty")
    refused(lambda: two.head_object(Bucket=bucket, Key="empty"), "404", 404)
    refused(lambda: one.delete_bucket(Bucket=bucket), "BucketNotEmpty", 409)
    for call, code in ((one.get_bucket_policy, "NoSuchBucketPolicy"), (one.get_bucket_cors, "NoSuchCORSConfiguration"),
                       (one.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration")):
        refused(lambda c=call: c(Bucket=bucket), code, 404)
    assert "LocationConstraint" in one.get_bucket_location(Bucket=bucket)
    assert bucket in [b["Name"] for b in two.list_buckets()["Buckets"]]
    assert one.get_object_acl(Bucket=bucket, Key="k/ä b")["Grants"][0]["Permission"] == "FULL_CONTROL"
    one.put_object_tagging(Bucket=bucket, Key="k/ä b", Tagging={"TagSet": [{"Key": "year", "Value": "2026"}]})
    assert two.get_object_tagging(Bucket=bucket, Key="k/ä b")["TagSet"] == [{"Key": "year", "Value": "2026"}]


def test_ranges(cluster, bucket):
    data = noise(5_000_000, 2)
    cluster.s3(0).put_object(Bucket=bucket, Key="r", Body=data)
    for i, (spec, part) in enumerate({"bytes=0-0": data[:1], "bytes=10-19": data[10:20], "bytes=1048570-1048590": data[1048570:1048591],
                                      "bytes=4999990-": data[4999990:], "bytes=-7": data[-7:], "bytes=0-99999999": data, "bytes=900000-4100000": data[900000:4100001]}.items()):
        got = cluster.s3(i % 3).get_object(Bucket=bucket, Key="r", Range=spec)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206 and sha(got["Body"].read()) == sha(part), spec
        assert got["ContentRange"].endswith("/5000000")
    refused(lambda: cluster.s3(0).get_object(Bucket=bucket, Key="r", Range="bytes=5000000-"), "InvalidRange", 416)


def test_conditions(cluster, bucket):
    one, two = cluster.s3(0), cluster.s3(1)
    only_new, only_this = cluster.s3(0), cluster.s3(2)
    only_new.meta.events.register("before-sign.s3.PutObject", lambda request, **_: request.headers.add_header("If-None-Match", "*"))
    first = only_new.put_object(Bucket=bucket, Key="c", Body=b"first")["ETag"]
    refused(lambda: only_new.put_object(Bucket=bucket, Key="c", Body=b"second"), "PreconditionFailed", 412)
    only_this.meta.events.register("before-sign.s3.PutObject", lambda request, **_: request.headers.add_header("If-Match", first))
    second = only_this.put_object(Bucket=bucket, Key="c", Body=b"second")["ETag"]
    refused(lambda: only_this.put_object(Bucket=bucket, Key="c", Body=b"third"), "PreconditionFailed", 412)
    assert two.get_object(Bucket=bucket, Key="c", IfMatch=second)["Body"].read() == b"second"
    refused(lambda: two.get_object(Bucket=bucket, Key="c", IfMatch=first), "PreconditionFailed", 412)
    refused(lambda: one.get_object(Bucket=bucket, Key="c", IfNoneMatch=second), "304", 304)
    assert one.get_object(Bucket=bucket, Key="c", IfNoneMatch=first)["Body"].read() == b"second"
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=1)
    refused(lambda: one.get_object(Bucket=bucket, Key="c", IfModifiedSince=soon), "304", 304)
    # One of many at once, through all three homes, creates the key; the others are told so.
    import concurrent.futures

    def create(i):
        c = cluster.s3(i % 3)
        c.meta.events.register("before-sign.s3.PutObject", lambda request, **_: request.headers.add_header("If-None-Match", "*"))
        try:
            c.put_object(Bucket=bucket, Key="race", Body=str(i).encode())
            return i
        except botocore.exceptions.ClientError as e:
            assert e.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412), e.response
            return None

    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        won = [i for i in pool.map(create, range(9)) if i is not None]
    assert len(won) == 1 and one.get_object(Bucket=bucket, Key="race")["Body"].read() == str(won[0]).encode()


def test_resumed_downloads(cluster, bucket):
    """A range goes on only with the version that was begun."""
    s3 = cluster.s3(1)
    etag = s3.put_object(Bucket=bucket, Key="film", Body=b"0123456789")["ETag"]

    def resume(version):
        c = cluster.s3(2)
        c.meta.events.register("before-sign.s3.GetObject", lambda request, **_: request.headers.add_header("If-Range", version))
        return c.get_object(Bucket=bucket, Key="film", Range="bytes=4-")["Body"].read()

    assert resume(etag) == b"456789"
    s3.put_object(Bucket=bucket, Key="film", Body=b"abcdefghij")
    assert resume(etag) == b"abcdefghij"


def test_lists_that_start_within_a_prefix(cluster, bucket):
    s3 = cluster.s3(0)
    for key in ("p/a", "p/b", "p/c", "q"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    for start, prefixes in (("p/a", ["p/"]), ("p/c", []), ("p/", [])):
        r = s3.list_objects_v2(Bucket=bucket, Delimiter="/", StartAfter=start)
        assert [p["Prefix"] for p in r.get("CommonPrefixes", [])] == prefixes and [o["Key"] for o in r["Contents"]] == ["q"], start


def test_storage_class_of_copies(cluster, bucket):
    s3 = cluster.s3(0)
    s3.put_object(Bucket=bucket, Key="a", Body=b"a", ContentType="image/png", StorageClass="STANDARD_IA")
    source = {"Bucket": bucket, "Key": "a"}
    for key, given, then in (("b", {}, None), ("c", {"StorageClass": "GLACIER_IR"}, "GLACIER_IR"), ("a", {"StorageClass": "ONEZONE_IA"}, "ONEZONE_IA")):
        s3.copy_object(Bucket=bucket, Key=key, CopySource=source, **given)
        head = cluster.s3(1).head_object(Bucket=bucket, Key=key)
        assert (head.get("StorageClass"), head["ContentType"]) == (then, "image/png"), key


def test_multipart_and_copy(cluster, bucket):
    one, two, three = (cluster.s3(i) for i in range(3))
    parts = [noise(5 << 20, "p1"), noise(6 << 20, "p2"), noise(1000, "p3")]
    up = one.create_multipart_upload(Bucket=bucket, Key="big", Metadata={"m": "1"}, ContentType="video/mp4")["UploadId"]
    etags = [c.upload_part(Bucket=bucket, Key="big", UploadId=up, PartNumber=n, Body=p)["ETag"] for n, (c, p) in enumerate(zip((one, two, three), parts), 1)]
    assert [p["Size"] for p in two.list_parts(Bucket=bucket, Key="big", UploadId=up)["Parts"]] == [len(p) for p in parts]
    assert [u["Key"] for u in three.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["big"]
    refused(lambda: two.head_object(Bucket=bucket, Key="big"), "404", 404)
    refused(lambda: one.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=up, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": '"0"'}]}), "InvalidPart", 400)
    done = three.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=up, MultipartUpload={"Parts": [{"PartNumber": n, "ETag": e} for n, e in enumerate(etags, 1)]})
    whole = b"".join(parts)
    assert done["ETag"] == '"' + hashlib.md5(b"".join(hashlib.md5(p).digest() for p in parts)).hexdigest() + '-3"'
    got = two.get_object(Bucket=bucket, Key="big")
    assert sha(got["Body"].read()) == sha(whole) and got["Metadata"] == {"m": "1"} and got["ContentType"] == "video/mp4"
    edge = len(parts[0]) - 10
    assert one.get_object(Bucket=bucket, Key="big", Range=f"bytes={edge}-{edge + 19}")["Body"].read() == whole[edge:edge + 20]
    # A copy, a copy onto itself with other metadata, and a copy in parts.
    one.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "big"})
    assert sha(three.get_object(Bucket=bucket, Key="copy")["Body"].read()) == sha(whole)
    refused(lambda: one.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "copy"}), "InvalidRequest", 400)
    two.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "copy"}, MetadataDirective="REPLACE", Metadata={"m": "2"})
    got = one.get_object(Bucket=bucket, Key="copy")
    assert got["Metadata"] == {"m": "2"} and sha(got["Body"].read()) == sha(whole)
    one.delete_object(Bucket=bucket, Key="big")
    assert sha(two.get_object(Bucket=bucket, Key="copy")["Body"].read()) == sha(whole), "a copy outlives its source"
    up = one.create_multipart_upload(Bucket=bucket, Key="pc")["UploadId"]
    cut = [(0, (5 << 20) - 1), (5 << 20, len(whole) - 1)]
    etags = [two.upload_part_copy(Bucket=bucket, Key="pc", UploadId=up, PartNumber=n, CopySource={"Bucket": bucket, "Key": "copy"}, CopySourceRange=f"bytes={a}-{b}")["CopyPartResult"]["ETag"]
             for n, (a, b) in enumerate(cut, 1)]
    one.complete_multipart_upload(Bucket=bucket, Key="pc", UploadId=up, MultipartUpload={"Parts": [{"PartNumber": n, "ETag": e} for n, e in enumerate(etags, 1)]})
    assert sha(three.get_object(Bucket=bucket, Key="pc")["Body"].read()) == sha(whole)
    # Too small a part is refused at the end; an aborted upload is gone.
    up = one.create_multipart_upload(Bucket=bucket, Key="small")["UploadId"]
    etags = [one.upload_part(Bucket=bucket, Key="small", UploadId=up, PartNumber=n, Body=b"x" * 100)["ETag"] for n in (1, 2)]
    refused(lambda: one.complete_multipart_upload(Bucket=bucket, Key="small", UploadId=up, MultipartUpload={"Parts": [{"PartNumber": n, "ETag": e} for n, e in enumerate(etags, 1)]}), "EntityTooSmall", 400)
    one.abort_multipart_upload(Bucket=bucket, Key="small", UploadId=up)
    refused(lambda: two.upload_part(Bucket=bucket, Key="small", UploadId=up, PartNumber=1, Body=b"x"), "NoSuchUpload", 404)
    assert "Uploads" not in two.list_multipart_uploads(Bucket=bucket)


def test_listing(cluster, bucket):
    one = cluster.s3(0)
    keys = sorted([f"d{i}/f{j}" for i in range(4) for j in range(6)] + ["top1", "top 2", "top&<3>", "zü"], key=lambda k: k.encode())
    for i, k in enumerate(keys):
        cluster.s3(i % 3).put_object(Bucket=bucket, Key=k, Body=k.encode())
    for version in ("list_objects", "list_objects_v2"):
        for n in range(3):
            c = cluster.s3(n)
            for size in (1000, 5, 1):
                pages = list(c.get_paginator(version).paginate(Bucket=bucket, PaginationConfig={"PageSize": size}))
                assert [o["Key"] for p in pages for o in p.get("Contents", [])] == keys, (version, n, size)
                assert len(pages) >= len(keys) // size
        pages = list(one.get_paginator(version).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2}))
        assert [p["Prefix"] for g in pages for p in g.get("CommonPrefixes", [])] == [f"d{i}/" for i in range(4)]
        assert [o["Key"] for g in pages for o in g.get("Contents", [])] == keys[24:]
        page = getattr(one, version)(Bucket=bucket, Prefix="d2/", Delimiter="/")
        assert [o["Key"] for o in page["Contents"]] == [f"d2/f{j}" for j in range(6)] and "CommonPrefixes" not in page
        assert all(o["Size"] == len(o["Key"]) and o["ETag"] == f'"{hashlib.md5(o["Key"].encode()).hexdigest()}"' for o in page["Contents"])
    assert [o["Key"] for o in one.list_objects_v2(Bucket=bucket, StartAfter="d3/f5")["Contents"]] == keys[24:]
    # Several deleted at once, with one that is not there; listed as gone at every home at once.
    gone = one.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys[:26] + ["never was"]]})
    assert len(gone["Deleted"]) == 27 and "Errors" not in gone
    for n in range(3):
        assert [o["Key"] for o in cluster.s3(n).list_objects_v2(Bucket=bucket)["Contents"]] == keys[26:]
    one.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": k} for k in keys], "Quiet": True})
    one.delete_bucket(Bucket=bucket)


def test_checksums(cluster, bucket):
    one, two = cluster.s3(0), cluster.s3(1)
    data = noise(100_000, "sums")
    right = {"sha256": base64.b64encode(hashlib.sha256(data).digest()).decode(), "sha1": base64.b64encode(hashlib.sha1(data).digest()).decode()}
    import zlib
    right["crc32"] = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    for name, value in right.items():
        field = f"Checksum{name.upper()}"
        assert one.put_object(Bucket=bucket, Key=name, Body=data, **{field: value})[field] == value
        got = two.get_object(Bucket=bucket, Key=name, ChecksumMode="ENABLED")
        assert got[field] == value and sha(got["Body"].read()) == sha(data)
        wrong = base64.b64encode(bytes(len(base64.b64decode(value)))).decode()
        refused(lambda f=field, w=wrong: one.put_object(Bucket=bucket, Key="wrong", Body=data, **{f: w}), "BadDigest", 400)
    refused(lambda: one.put_object(Bucket=bucket, Key="wrong", Body=data, ContentMD5=base64.b64encode(bytes(16)).decode()), "BadDigest", 400)
    refused(lambda: two.head_object(Bucket=bucket, Key="wrong"), "404", 404)


def test_homes_see_each_other_at_once(cluster, bucket):
    """A write acknowledged by one home is read, listed and deleted by the others right away."""
    for i in range(60):
        writer, reader, other = (cluster.s3((i + k) % 3) for k in range(3))
        data = noise(2000 + i * 4000, ("each", i))
        writer.put_object(Bucket=bucket, Key="same", Body=data)
        writer.put_object(Bucket=bucket, Key=f"k{i:03}", Body=data)
        assert sha(reader.get_object(Bucket=bucket, Key="same")["Body"].read()) == sha(data)
        assert other.list_objects_v2(Bucket=bucket, Prefix=f"k{i:03}")["KeyCount"] == 1
        other.delete_object(Bucket=bucket, Key=f"k{i:03}")
        assert writer.list_objects_v2(Bucket=bucket, Prefix=f"k{i:03}")["KeyCount"] == 0


@pytest.mark.parametrize("region", ["us-east-1", "garage", "eu-west-3", "anything-at-all"])
def test_any_region(cluster, bucket, region):
    c = cluster.s3(1, region=region)
    c.put_object(Bucket=bucket, Key="r", Body=region.encode())
    assert c.get_object(Bucket=bucket, Key="r")["Body"].read() == region.encode()


def signed(cluster, method, host, path, body=b"", secret=None, at=None, headers=()):
    """A request signed by botocore, for curl: lets the Host, the time and the secret be what a test wants."""
    import unittest.mock
    credentials = botocore.session.Session().create_client("sts", region_name="garage", aws_access_key_id=cluster.key,
                                                           aws_secret_access_key=secret or cluster.secret)._request_signer._credentials
    request = AWSRequest(method, f"http://{host}{path}", data=body, headers={"Host": host, "x-amz-content-sha256": hashlib.sha256(body).hexdigest(), **dict(headers)})
    real = datetime.datetime
    if at:
        with unittest.mock.patch("botocore.auth.datetime") as fake:
            fake.datetime.utcnow.return_value = at.astimezone(datetime.timezone.utc).replace(tzinfo=None)
            fake.datetime.strptime = real.strptime
            S3SigV4Auth(credentials, "s3", "garage").add_auth(request)
    else:
        S3SigV4Auth(credentials, "s3", "garage").add_auth(request)
    return [a for k, v in request.headers.items() for a in ("-H", f"{k}: {v}")]


def test_virtual_host_style(cluster, bucket, tool, tmp_path):
    data = noise(50_000, "vhost")
    (tmp_path / "body").write_bytes(data)
    host, home = f"{bucket}.s3.localhost", cluster.homes[1]
    tool("/usr/bin/curl", "-fsS", "-X", "PUT", "--data-binary", f"@{tmp_path}/body", *signed(cluster, "PUT", host, "/dir/v%20h", data), f"{home.url}/dir/v%20h")
    assert sha(cluster.s3(0).get_object(Bucket=bucket, Key="dir/v h")["Body"].read()) == sha(data)
    tool("/usr/bin/curl", "-fsS", "-o", tmp_path / "got", *signed(cluster, "GET", host, "/dir/v%20h"), f"{home.url}/dir/v%20h")
    assert sha((tmp_path / "got").read_bytes()) == sha(data)
    assert "<Key>dir/v h</Key>" in tool("/usr/bin/curl", "-fsS", *signed(cluster, "GET", host, "/"), f"{home.url}/")


# ---- s3cmd

def test_s3cmd(cluster, tool, files, tmp_path):
    config = tmp_path / "s3cfg"
    home = cluster.homes[1]
    config.write_text(f"[default]\naccess_key = {cluster.key}\nsecret_key = {cluster.secret}\nhost_base = {home.s3}\nhost_bucket = {home.s3}\nuse_https = False\nsignature_v2 = False\n")

    def s3cmd(*args, **more):
        return tool("/usr/bin/s3cmd", "-c", config, "--no-progress", *args, **more)

    s3cmd("mb", "s3://s3cmd-bucket")
    s3cmd("put", files / "a.txt", files / "sub/ü ñ+&%.jpg", "s3://s3cmd-bucket/put/")
    s3cmd("put", files / "sub/large.bin", "s3://s3cmd-bucket/large.bin")
    s3cmd("get", "s3://s3cmd-bucket/large.bin", tmp_path / "large.back")
    assert sha((tmp_path / "large.back").read_bytes()) == sha((files / "sub/large.bin").read_bytes())
    listed = s3cmd("ls", "-r", "s3://s3cmd-bucket/")
    assert "s3://s3cmd-bucket/put/ü ñ+&%.jpg" in listed and len(listed.splitlines()) == 3
    s3cmd("mv", "s3://s3cmd-bucket/put/a.txt", "s3://s3cmd-bucket/put/moved.txt")
    s3cmd("get", "s3://s3cmd-bucket/put/moved.txt", tmp_path / "moved")
    assert sha((tmp_path / "moved").read_bytes()) == sha((files / "a.txt").read_bytes())
    s3cmd("get", "s3://s3cmd-bucket/put/a.txt", tmp_path / "gone", code=64)
    s3cmd("setacl", "--acl-private", "s3://s3cmd-bucket/put/moved.txt")
    s3cmd("modify", "--add-header", "Content-Type: text/x-new", "s3://s3cmd-bucket/put/moved.txt")
    info = s3cmd("info", "s3://s3cmd-bucket/put/moved.txt")
    assert "text/x-new" in info and "MD5 sum" in info
    assert "Location" in s3cmd("info", "s3://s3cmd-bucket")
    s3cmd("sync", f"{files}/", "s3://s3cmd-bucket/tree/")
    s3cmd("sync", "s3://s3cmd-bucket/tree/", f"{tmp_path}/tree/")
    assert tree_sums(tmp_path / "tree") == tree_sums(files)
    s3cmd("del", "--recursive", "--force", "s3://s3cmd-bucket")
    s3cmd("rb", "s3://s3cmd-bucket")


# ---- rclone

def test_rclone(cluster, tool, files, tmp_path):
    setup = {"RCLONE_CONFIG_G_TYPE": "s3", "RCLONE_CONFIG_G_PROVIDER": "Other", "RCLONE_CONFIG_G_ENDPOINT": cluster.homes[2].url, "RCLONE_CONFIG_G_REGION": "garage",
             "RCLONE_CONFIG_G_ACCESS_KEY_ID": cluster.key, "RCLONE_CONFIG_G_SECRET_ACCESS_KEY": cluster.secret, "RCLONE_RETRIES": "1", "RCLONE_LOW_LEVEL_RETRIES": "1",
             "RCLONE_S3_UPLOAD_CUTOFF": "8M", "RCLONE_S3_CHUNK_SIZE": "5M"}

    def rclone(*args, **more):
        return tool("/usr/bin/rclone", *args, extra=setup, **more)

    rclone("mkdir", "g:rclone-bucket")
    rclone("copy", files, "g:rclone-bucket/tree")
    rclone("check", "--download", files, "g:rclone-bucket/tree")
    rclone("check", files, "g:rclone-bucket/tree")
    rclone("touch", "-t", "2020-02-03T04:05:06", "g:rclone-bucket/tree/a.txt")
    assert "2020-02-03 04:05:06" in rclone("lsl", "g:rclone-bucket/tree/a.txt")
    (files / "a.txt").write_bytes(b"changed now")
    (files / "empty").unlink()
    rclone("sync", files, "g:rclone-bucket/tree")
    rclone("copy", "g:rclone-bucket/tree", tmp_path / "back")
    assert tree_sums(tmp_path / "back") == tree_sums(files)
    rclone("moveto", "g:rclone-bucket/tree/sub/large.bin", "g:rclone-bucket/moved.bin")
    assert sha(cluster.s3(0).get_object(Bucket="rclone-bucket", Key="moved.bin")["Body"].read()) == sha((files / "sub/large.bin").read_bytes())
    rclone("delete", "g:rclone-bucket")
    assert rclone("ls", "g:rclone-bucket").strip() == ""
    rclone("purge", "g:rclone-bucket")


# ---- restic

def test_restic(cluster, tool, files, tmp_path):
    setup = {"RESTIC_PASSWORD": "correct horse", "RESTIC_REPOSITORY": f"s3:{cluster.homes[0].url}/restic-bucket/repo", "RESTIC_CACHE_DIR": str(tmp_path / "cache")}

    def restic(*args):
        return tool("/usr/bin/restic", "-q", *args, extra=setup)

    restic("init")
    restic("backup", files)
    restic("check", "--read-data")
    before = tree_sums(files)
    (files / "sub/large.bin").write_bytes(noise(9 << 20, "other"))
    restic("backup", files)
    restic("restore", "latest", "--target", tmp_path / "now")
    assert tree_sums(f"{tmp_path}/now{files}") == tree_sums(files) != before
    restic("forget", "--keep-last", "1", "--prune")
    restic("check", "--read-data")
    restic("restore", "latest", "--target", tmp_path / "again")
    assert tree_sums(f"{tmp_path}/again{files}") == tree_sums(files)


# ---- s3fs

def test_s3fs(cluster, bucket, tmp_path):
    if not os.path.exists("/dev/fuse") or os.geteuid() != 0:
        pytest.skip("no /dev/fuse for this user")
    mount, passwd = tmp_path / "mnt", tmp_path / "passwd"
    mount.mkdir()
    passwd.write_text(f"{cluster.key}:{cluster.secret}")
    passwd.chmod(0o600)
    process = subprocess.Popen(["/usr/bin/s3fs", bucket, str(mount), "-f", "-o", f"passwd_file={passwd},url={cluster.homes[2].url},use_path_request_style,endpoint=garage"],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={"PATH": "/usr/bin:/bin"})
    try:
        end = time.monotonic() + 10
        while not os.path.ismount(mount):
            if process.poll() is not None:
                words = process.stdout.read().decode()
                if "fuse" in words.lower() and ("not permitted" in words or "device not found" in words or "No such device" in words):
                    pytest.skip(f"FUSE does not work here: {words.strip()}")
                pytest.fail(f"s3fs ended: {words}")
            assert time.monotonic() < end, "s3fs did not mount"
            time.sleep(0.05)
        data = noise(3_000_000, "fs")
        (mount / "d").mkdir()
        (mount / "d/file.bin").write_bytes(data)
        assert sha(cluster.s3(0).get_object(Bucket=bucket, Key="d/file.bin")["Body"].read()) == sha(data)
        (mount / "d/file.bin").chmod(0o640)
        (mount / "d/file.bin").rename(mount / "d/renamed.bin")
        with open(mount / "d/renamed.bin", "ab") as f:
            f.write(b"more")
        assert sha(cluster.s3(1).get_object(Bucket=bucket, Key="d/renamed.bin")["Body"].read()) == sha(data + b"more")
        assert sorted(p.name for p in (mount / "d").iterdir()) == ["renamed.bin"]
        (mount / "d/renamed.bin").unlink()
        until("the object is gone", lambda: cluster.s3(1).list_objects_v2(Bucket=bucket, Prefix="d/").get("KeyCount") == 1, 5)
    finally:
        subprocess.run(["/bin/umount", str(mount)], capture_output=True, check=False)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(pathlib.Path(tmp_path / "cache"), ignore_errors=True)


# ---- Wrong signatures get S3's errors.

def test_wrong_signature_and_clock(cluster, bucket, tool):
    home = cluster.homes[0]
    url = f"{home.url}/{bucket}/x"
    answer = tool("/usr/bin/curl", "-sS", *signed(cluster, "GET", home.s3, f"/{bucket}/x", secret="wrong"), url)
    assert "<Code>SignatureDoesNotMatch</Code>" in answer and answer.startswith("<?xml")
    now = datetime.datetime.now(datetime.timezone.utc)
    for hours in (-2, 2):
        answer = tool("/usr/bin/curl", "-sS", "-w", " %{http_code}", *signed(cluster, "GET", home.s3, f"/{bucket}/x", at=now + datetime.timedelta(hours=hours)), url)
        assert "<Code>RequestTimeTooSkewed</Code>" in answer and answer.endswith(" 403"), answer
    within = signed(cluster, "GET", home.s3, f"/{bucket}/x", at=now + datetime.timedelta(minutes=14))
    assert "<Code>NoSuchKey</Code>" in tool("/usr/bin/curl", "-sS", *within, url)
    assert "<Code>AccessDenied</Code>" in tool("/usr/bin/curl", "-sS", url), "nobody reads without a signature"
    stranger = cluster.homes[0].ctl("key", "create", "stranger")
    import boto3
    c = boto3.client("s3", endpoint_url=cluster.homes[1].url, region_name="garage", aws_access_key_id=stranger["access_key_id"], aws_secret_access_key=stranger["secret_access_key"])
    refused(lambda: c.put_object(Bucket=bucket, Key="x", Body=b""), "AccessDenied", 403)
    refused(lambda: c.list_objects_v2(Bucket=bucket), "AccessDenied", 403)
    cluster.homes[2].ctl("bucket", "allow", bucket, "--key", stranger["access_key_id"], "--read")
    assert "Contents" not in c.list_objects_v2(Bucket=bucket)
    refused(lambda: c.put_object(Bucket=bucket, Key="x", Body=b""), "AccessDenied", 403)
    unknown = boto3.client("s3", endpoint_url=home.url, region_name="garage", aws_access_key_id="GRNOBODY", aws_secret_access_key="x")
    refused(unknown.list_buckets, "InvalidAccessKeyId", 403)
