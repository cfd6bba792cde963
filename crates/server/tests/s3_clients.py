"""Real S3 clients against the endpoint: boto3, the AWS command line and, where it is installed, rclone.

Run by `s3_clients.rs`, which starts two endpoints over one store and writes what is needed to a JSON file:
    python s3_clients.py setup.json
Every function named `check_...` is a check; the first that fails ends the run.
"""

import base64
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

SETUP = json.loads(pathlib.Path(sys.argv[1]).read_text())
ENDPOINT, SECOND = SETUP["endpoint"], SETUP["second_endpoint"]
MB = 1 << 20


def client(credential, endpoint=ENDPOINT, **more):
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **more)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=credential["access_key"],
        aws_secret_access_key=credential["secret_key"],
        aws_session_token=credential.get("session_token"),
        config=config,
    )


S3 = client(SETUP["key"])
BUCKET = "photos"


def refused(code, call, **arguments):
    """Calls, expects the error code (or one of several), and returns the HTTP status."""
    codes = code if isinstance(code, tuple) else (code,)
    try:
        call(**arguments)
    except ClientError as e:
        got, status = e.response["Error"]["Code"], e.response["ResponseMetadata"]["HTTPStatusCode"]
        assert got in codes, f"expected {code}, got {got} ({status}): {e}"
        return status
    raise AssertionError(f"expected {code}, but the call succeeded: {arguments}")


def get(key, s3=S3, bucket=BUCKET, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def http(url, method="GET", data=None, headers=None):
    request = urllib.request.Request(url, method=method, data=data, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def noise(size, seed):
    """Bytes that do not repeat, the same for the same seed."""
    out = bytearray()
    block = hashlib.sha256(str(seed).encode()).digest()
    while len(out) < size:
        block = hashlib.sha256(block).digest()
        out += block * 1024 if size > MB else block
    return bytes(out[:size])


def check_buckets():
    S3.create_bucket(Bucket=BUCKET)
    refused("BucketAlreadyOwnedByYou", S3.create_bucket, Bucket=BUCKET)
    names = [b["Name"] for b in S3.list_buckets()["Buckets"]]
    assert names == ["jobs", BUCKET], names
    S3.head_bucket(Bucket=BUCKET)
    assert S3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] is None
    assert refused("404", S3.head_bucket, Bucket="nobody") == 404
    refused("NoSuchBucket", S3.put_object, Bucket="nobody", Key="a", Body=b"")
    refused("NoSuchBucket", S3.get_object, Bucket="nobody", Key="a")
    refused("NoSuchBucket", S3.list_objects_v2, Bucket="nobody")
    refused("NoSuchKey", S3.get_object, Bucket=BUCKET, Key="nothing")
    S3.put_object(Bucket=BUCKET, Key="x", Body=b"x")
    refused("BucketNotEmpty", S3.delete_bucket, Bucket=BUCKET)
    S3.delete_object(Bucket=BUCKET, Key="x")
    S3.delete_object(Bucket=BUCKET, Key="x")
    S3.create_bucket(Bucket="brief")
    S3.delete_bucket(Bucket="brief")
    refused("NoSuchBucket", S3.delete_bucket, Bucket="brief")


def check_system_is_not_a_bucket():
    for call in (S3.list_objects_v2, S3.delete_bucket):
        refused("NoSuchBucket", call, Bucket="system")
    refused("NoSuchBucket", S3.get_object, Bucket="system", Key=f"buckets/{BUCKET}")
    refused("NoSuchBucket", S3.put_object, Bucket="system", Key="buckets/forged", Body=b"")
    refused("NoSuchBucket", S3.copy_object, Bucket=BUCKET, Key="a", CopySource=f"system/buckets/{BUCKET}")
    assert refused(("NoSuchBucket", "InvalidBucketName", "AccessDenied"), S3.create_bucket, Bucket="system") >= 400


def check_metadata_and_headers():
    S3.put_object(
        Bucket=BUCKET, Key="m", Body=b"a,b", ContentType="text/csv", ContentEncoding="gzip", CacheControl="no-cache",
        ContentDisposition="attachment", ContentLanguage="de", Metadata={"owner": "ada"}, StorageClass="STANDARD_IA",
    )
    for got in (S3.head_object(Bucket=BUCKET, Key="m"), S3.get_object(Bucket=BUCKET, Key="m")):
        assert got["ContentType"] == "text/csv" and got["ContentEncoding"] == "gzip" and got["CacheControl"] == "no-cache", got
        assert got["ContentDisposition"] == "attachment" and got["ContentLanguage"] == "de", got
        assert got["Metadata"] == {"owner": "ada"} and got["ContentLength"] == 3, got
    assert S3.head_object(Bucket=BUCKET, Key="m")["StorageClass"] == "STANDARD"
    shown = S3.get_object(Bucket=BUCKET, Key="m", ResponseContentType="text/plain")
    assert shown["ContentType"] == "text/plain", shown
    S3.put_object(Bucket=BUCKET, Key="plain", Body=b"")
    assert S3.head_object(Bucket=BUCKET, Key="plain")["ContentType"] == "binary/octet-stream"
    assert get("plain") == b""


def check_ranges():
    body = noise(1000, "ranges")
    S3.put_object(Bucket=BUCKET, Key="r", Body=body)
    for text, want in (("0-0", body[:1]), ("10-19", body[10:20]), ("990-", body[990:]), ("-7", body[-7:]), ("5-99999", body[5:])):
        got = S3.get_object(Bucket=BUCKET, Key="r", Range=f"bytes={text}")
        assert got["Body"].read() == want, text
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206 and got["ContentRange"].endswith("/1000"), got
    assert refused("InvalidRange", S3.get_object, Bucket=BUCKET, Key="r", Range="bytes=1000-") == 416
    assert refused("InvalidRange", S3.get_object, Bucket=BUCKET, Key="plain", Range="bytes=0-1") == 416
    assert S3.head_object(Bucket=BUCKET, Key="r", Range="bytes=0-9")["ContentLength"] == 10


def check_read_conditions():
    tag = S3.put_object(Bucket=BUCKET, Key="c", Body=b"1")["ETag"]
    head = S3.head_object(Bucket=BUCKET, Key="c")
    assert head["ETag"] == tag, (head["ETag"], tag)
    at, later = head["LastModified"], head["LastModified"].replace(year=head["LastModified"].year + 1)
    earlier = at.replace(year=at.year - 1)
    for call in (S3.get_object, S3.head_object):
        call(Bucket=BUCKET, Key="c", IfMatch=tag)
        call(Bucket=BUCKET, Key="c", IfNoneMatch='"other"')
        call(Bucket=BUCKET, Key="c", IfModifiedSince=earlier)
        call(Bucket=BUCKET, Key="c", IfUnmodifiedSince=at)
        assert refused(("PreconditionFailed", "412"), call, Bucket=BUCKET, Key="c", IfMatch='"other"') == 412
        assert refused(("NotModified", "304"), call, Bucket=BUCKET, Key="c", IfNoneMatch=tag) == 304
        assert refused(("NotModified", "304"), call, Bucket=BUCKET, Key="c", IfModifiedSince=later) == 304
        assert refused(("PreconditionFailed", "412"), call, Bucket=BUCKET, Key="c", IfUnmodifiedSince=earlier) == 412


def check_conditional_writes():
    for name, size in (("small", 10), ("large", 9 * MB)):
        key = f"once-{name}"

        def create(n, key=key, size=size):
            body = bytes([n]) * size
            try:
                client(SETUP["key"]).put_object(Bucket=BUCKET, Key=key, Body=body, IfNoneMatch="*")
                return n
            except ClientError as e:
                assert e.response["Error"]["Code"] == "PreconditionFailed", e
                return None

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            winners = [n for n in pool.map(create, range(8)) if n is not None]
        assert len(winners) == 1, f"{key}: {winners}"
        assert get(key) == bytes(winners) * size, key
    tag = S3.head_object(Bucket=BUCKET, Key="once-small")["ETag"]
    new = S3.put_object(Bucket=BUCKET, Key="once-small", Body=b"second", IfMatch=tag)["ETag"]
    assert refused("PreconditionFailed", S3.put_object, Bucket=BUCKET, Key="once-small", Body=b"third", IfMatch=tag) == 412
    S3.put_object(Bucket=BUCKET, Key="once-small", Body=b"x" * 9 * MB, IfMatch=new)
    assert refused("NoSuchKey", S3.put_object, Bucket=BUCKET, Key="never", Body=b"", IfMatch=tag) == 404
    refused("NotImplemented", S3.put_object, Bucket=BUCKET, Key="never", Body=b"", IfNoneMatch=tag)


def check_odd_keys():
    odd = [
        "with space", "ümlaut/日本語/🦀", "100%", "%41", "a%2Fb", "a+b", "q?x=1&y=2#z", "tilde~(par)[br]{c}^`'\"", "back\\slash",
        "<xml>&amp;", "dots/...", ".hidden", "trailing.", " lead", "a=b;c,d@e:f!g$h*", "x" * 200 + "/" + "y" * 200,
    ]
    for key in odd:
        S3.put_object(Bucket=BUCKET, Key=f"odd/{key}", Body=key.encode())
        assert get(f"odd/{key}") == key.encode(), key
    for encoded in (True, False):
        s3 = client(SETUP["key"])
        if not encoded:
            s3.meta.events.unregister("before-parameter-build.s3.ListObjectsV2", _set_encoding())
        listed = [o["Key"] for o in s3.list_objects_v2(Bucket=BUCKET, Prefix="odd/")["Contents"]]
        assert sorted(listed) == sorted(f"odd/{k}" for k in odd), listed
        assert listed == sorted(listed, key=lambda k: k.encode()), listed
    S3.copy_object(Bucket=BUCKET, Key="odd/copy of 100%", CopySource={"Bucket": BUCKET, "Key": "odd/100%"})
    assert get("odd/copy of 100%") == b"100%"
    keys = [{"Key": f"odd/{k}"} for k in odd]
    answer = S3.delete_objects(Bucket=BUCKET, Delete={"Objects": keys})
    assert len(answer["Deleted"]) == len(odd) and not answer.get("Errors"), answer
    for key in ("a//b", "/a", "a/", "a/../b", "./a", "a\tb"):
        assert refused("InvalidArgument", S3.put_object, Bucket=BUCKET, Key=key, Body=b"") == 400, key
        assert refused("NoSuchKey", S3.get_object, Bucket=BUCKET, Key=key) == 404, key
    refused(("InvalidArgument",), S3.create_multipart_upload, Bucket=BUCKET, Key="a//b")
    refused(("KeyTooLongError",), S3.put_object, Bucket=BUCKET, Key="k" * 1025, Body=b"")


def _set_encoding():
    from botocore.handlers import set_list_objects_encoding_type_url

    return set_list_objects_encoding_type_url


def check_checksums():
    body = b"hello"
    sums = {
        "ChecksumCRC32": base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode(),
        "ChecksumSHA1": base64.b64encode(hashlib.sha1(body).digest()).decode(),
        "ChecksumSHA256": base64.b64encode(hashlib.sha256(body).digest()).decode(),
        "ChecksumCRC32C": "mnG7TA==",
    }
    for name, value in sums.items():
        assert S3.put_object(Bucket=BUCKET, Key="sum", Body=body, **{name: value})[name] == value
        assert S3.head_object(Bucket=BUCKET, Key="sum", ChecksumMode="ENABLED")[name] == value
        wrong = ("B" if value[0] == "A" else "A") + value[1:]
        assert refused("BadDigest", S3.put_object, Bucket=BUCKET, Key="sum-bad", Body=body, **{name: wrong}) == 400
    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
    S3.put_object(Bucket=BUCKET, Key="sum", Body=body, ContentMD5=md5)
    refused("BadDigest", S3.put_object, Bucket=BUCKET, Key="sum-bad", Body=b"other", ContentMD5=md5)
    refused("InvalidDigest", S3.put_object, Bucket=BUCKET, Key="sum-bad", Body=body, ContentMD5="eA==")
    assert refused("404", S3.head_object, Bucket=BUCKET, Key="sum-bad") == 404
    _trailers(body, sums["ChecksumCRC32"])


def _trailers(body, crc):
    """A body in chunks with its checksum after it, as SDKs send streams, signed by hand: unsigned payload, plain HTTP."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    for sent, right in ((crc, True), ("AAAAAA==", False), (None, False)):
        trailer = f"x-amz-checksum-crc32:{sent}\r\n" if sent else ""
        framed = f"{len(body):x}\r\n".encode() + body + f"\r\n0\r\n{trailer}\r\n".encode()
        headers = {
            "content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(len(body)),
            "x-amz-trailer": "x-amz-checksum-crc32", "x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            "content-length": str(len(framed)),
        }
        request = AWSRequest("PUT", f"{ENDPOINT}/{BUCKET}/trailed", headers=headers, data=framed)
        key = Credentials(SETUP["key"]["access_key"], SETUP["key"]["secret_key"])
        auth = S3SigV4Auth(key, "s3", "us-east-1")
        auth.payload = lambda _request: "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        auth.add_auth(request)
        signed = {k: v for k, v in request.headers.items()}
        signed["x-amz-content-sha256"] = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        status, answer = http(f"{ENDPOINT}/{BUCKET}/trailed", "PUT", framed, signed)
        assert (status == 200) == right, (sent, status, answer)
    assert get("trailed") == body
    assert "ContentEncoding" not in S3.head_object(Bucket=BUCKET, Key="trailed")


def check_listing_2500():
    S3.create_bucket(Bucket="many")
    keys = [f"d{n % 5}/{n:04}" for n in range(2500)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: S3.put_object(Bucket="many", Key=k, Body=b""), keys))
    keys.sort()
    for operation, size in (("list_objects_v2", 1000), ("list_objects_v2", 333), ("list_objects", 1000)):
        pages = list(S3.get_paginator(operation).paginate(Bucket="many", PaginationConfig={"PageSize": size}))
        assert [o["Key"] for p in pages for o in p["Contents"]] == keys, operation
        assert len(pages) == -(-2500 // size), (operation, len(pages))
    grouped = S3.list_objects_v2(Bucket="many", Delimiter="/")
    assert [p["Prefix"] for p in grouped["CommonPrefixes"]] == [f"d{n}/" for n in range(5)] and not grouped.get("Contents"), grouped
    pages = list(S3.get_paginator("list_objects_v2").paginate(Bucket="many", Delimiter="/", PaginationConfig={"PageSize": 2}))
    assert [p["Prefix"] for page in pages for p in page["CommonPrefixes"]] == [f"d{n}/" for n in range(5)]
    inside = S3.list_objects_v2(Bucket="many", Prefix="d3/", Delimiter="/", StartAfter="d3/2490", MaxKeys=10)
    assert [o["Key"] for o in inside["Contents"]] == ["d3/2493", "d3/2498"] and inside["KeyCount"] == 2, inside
    assert S3.list_objects_v2(Bucket="many", Prefix="d3/24", MaxKeys=3)["IsTruncated"]
    assert S3.list_objects_v2(Bucket="many", MaxKeys=0)["KeyCount"] == 0
    refused("InvalidArgument", S3.list_objects_v2, Bucket="many", ContinuationToken="forged")
    for n in range(0, 2500, 1000):
        S3.delete_objects(Bucket="many", Delete={"Objects": [{"Key": k} for k in keys[n:n + 1000]], "Quiet": True})
    assert S3.list_objects_v2(Bucket="many")["KeyCount"] == 0
    S3.delete_bucket(Bucket="many")


def check_multipart():
    body = noise(12 * MB, "multipart")
    pieces = [body[:5 * MB], body[5 * MB:10 * MB], body[10 * MB:]]
    upload = S3.create_multipart_upload(Bucket=BUCKET, Key="mp", ContentType="text/x", Metadata={"a": "b"})["UploadId"]
    where = {"Bucket": BUCKET, "Key": "mp", "UploadId": upload}
    # The second endpoint stands for the same server after a restart.
    servers = [S3, client(SETUP["key"], SECOND), S3]
    tags = [s.upload_part(PartNumber=n + 1, Body=p, **where)["ETag"] for n, (s, p) in enumerate(zip(servers, pieces))]
    listed = S3.list_parts(MaxParts=2, **where)
    assert [p["Size"] for p in listed["Parts"]] == [5 * MB, 5 * MB] and listed["IsTruncated"], listed
    assert [p["ETag"] for p in S3.list_parts(PartNumberMarker=2, **where)["Parts"]] == tags[2:]
    assert [u["UploadId"] for u in S3.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == [upload]
    parts = [{"PartNumber": n + 1, "ETag": t} for n, t in enumerate(tags)]
    refused("InvalidPartOrder", S3.complete_multipart_upload, MultipartUpload={"Parts": parts[::-1]}, **where)
    refused("InvalidPart", S3.complete_multipart_upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": '"x"'}]}, **where)
    refused("EntityTooSmall", S3.complete_multipart_upload, MultipartUpload={"Parts": parts + [{"PartNumber": 4, "ETag": S3.upload_part(PartNumber=4, Body=b"x", **where)["ETag"]}]}, **where)
    refused("NoSuchUpload", S3.upload_part, Bucket=BUCKET, Key="other", UploadId=upload, PartNumber=1, Body=b"")
    refused("NoSuchUpload", S3.upload_part, Bucket=BUCKET, Key="mp", UploadId="../../jobs", PartNumber=1, Body=b"")
    wrong = base64.b64encode(b"\0\0\0\0").decode()
    refused("BadDigest", S3.complete_multipart_upload, MultipartUpload={"Parts": parts}, ChecksumCRC32=wrong, ChecksumType="FULL_OBJECT", **where)
    refused("404", S3.head_object, Bucket=BUCKET, Key="mp")
    done = servers[1].complete_multipart_upload(MultipartUpload={"Parts": parts}, IfNoneMatch="*", **where)
    again = S3.complete_multipart_upload(MultipartUpload={"Parts": parts}, IfNoneMatch="*", **where)
    head = S3.head_object(Bucket=BUCKET, Key="mp")
    assert done["ETag"] == again["ETag"] == head["ETag"], (done["ETag"], again["ETag"], head["ETag"])
    assert head["ContentType"] == "text/x" and head["Metadata"] == {"a": "b"}, head
    assert get("mp") == body
    second = {"Bucket": BUCKET, "Key": "mp", "UploadId": S3.create_multipart_upload(Bucket=BUCKET, Key="mp")["UploadId"]}
    copied = S3.upload_part_copy(PartNumber=1, CopySource=f"{BUCKET}/mp", CopySourceRange=f"bytes=0-{6 * MB - 1}", **second)
    tag2 = S3.upload_part(PartNumber=2, Body=b"end", **second)["ETag"]
    parts = [{"PartNumber": 1, "ETag": copied["CopyPartResult"]["ETag"]}, {"PartNumber": 2, "ETag": tag2}]
    assert refused("PreconditionFailed", S3.complete_multipart_upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*", **second) == 412
    S3.complete_multipart_upload(MultipartUpload={"Parts": parts}, IfMatch=head["ETag"], **second)
    assert get("mp") == body[:6 * MB] + b"end"
    third = {"Bucket": BUCKET, "Key": "gone", "UploadId": S3.create_multipart_upload(Bucket=BUCKET, Key="gone")["UploadId"]}
    S3.upload_part(PartNumber=1, Body=b"x", **third)
    S3.abort_multipart_upload(**third)
    refused("NoSuchUpload", S3.list_parts, **third)
    assert "Uploads" not in S3.list_multipart_uploads(Bucket=BUCKET)


def check_copy():
    S3.put_object(Bucket=BUCKET, Key="from", Body=b"copy me", ContentType="text/x", Metadata={"a": "b"})
    tag = S3.head_object(Bucket=BUCKET, Key="from")["ETag"]
    source = {"Bucket": BUCKET, "Key": "from"}
    S3.copy_object(Bucket=BUCKET, Key="to", CopySource=source)
    head = S3.head_object(Bucket=BUCKET, Key="to")
    assert get("to") == b"copy me" and head["Metadata"] == {"a": "b"} and head["ContentType"] == "text/x", head
    S3.copy_object(Bucket=BUCKET, Key="to", CopySource=source, MetadataDirective="REPLACE", Metadata={"c": "d"}, CopySourceIfMatch=tag)
    assert S3.head_object(Bucket=BUCKET, Key="to")["Metadata"] == {"c": "d"}
    refused("PreconditionFailed", S3.copy_object, Bucket=BUCKET, Key="to", CopySource=source, CopySourceIfMatch='"x"')
    refused("PreconditionFailed", S3.copy_object, Bucket=BUCKET, Key="to", CopySource=source, CopySourceIfNoneMatch=tag)
    refused("NoSuchKey", S3.copy_object, Bucket=BUCKET, Key="to", CopySource={"Bucket": BUCKET, "Key": "nothing"})
    refused("InvalidRequest", S3.copy_object, Bucket=BUCKET, Key="from", CopySource=source)
    S3.copy_object(Bucket=BUCKET, Key="from", CopySource=source, MetadataDirective="REPLACE", ContentType="text/y")
    assert S3.head_object(Bucket=BUCKET, Key="from")["ContentType"] == "text/y" and get("from") == b"copy me"


def check_honest_answers():
    assert "Status" not in S3.get_bucket_versioning(Bucket=BUCKET)
    assert S3.get_bucket_acl(Bucket=BUCKET)["Grants"][0]["Permission"] == "FULL_CONTROL"
    assert S3.get_object_tagging(Bucket=BUCKET, Key="from")["TagSet"] == []
    assert S3.get_object_acl(Bucket=BUCKET, Key="from")["Grants"]
    refused("NoSuchTagSet", S3.get_bucket_tagging, Bucket=BUCKET)
    refused("NoSuchBucketPolicy", S3.get_bucket_policy, Bucket=BUCKET)
    refused("NoSuchVersion", S3.get_object, Bucket=BUCKET, Key="from", VersionId="v1")
    for arguments in (
        {"Tagging": "a=b"}, {"ACL": "public-read"}, {"ServerSideEncryption": "aws:kms"}, {"GrantRead": "id=x"}, {"WebsiteRedirectLocation": "/"},
    ):
        refused("NotImplemented", S3.put_object, Bucket=BUCKET, Key="asked", Body=b"", **arguments)
    S3.put_object(Bucket=BUCKET, Key="asked", Body=b"", ACL="private")
    refused("NotImplemented", S3.put_object_tagging, Bucket=BUCKET, Key="from", Tagging={"TagSet": []})
    refused("NotImplemented", S3.put_bucket_versioning, Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    refused("NotImplemented", S3.delete_object, Bucket=BUCKET, Key="from", IfMatch='"x"')


def check_anonymous_and_wrong_secrets():
    for url in (f"{ENDPOINT}/", f"{ENDPOINT}/{BUCKET}?list-type=2", f"{ENDPOINT}/{BUCKET}/from"):
        status, body = http(url)
        assert status == 403 and b"AccessDenied" in body, (url, status, body)
    assert http(f"{ENDPOINT}/{BUCKET}/new", "PUT", b"x")[0] == 403
    form = b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + b"x" * MB + b"\r\n--b--\r\n"
    assert http(f"{ENDPOINT}/{BUCKET}", "POST", form, {"Content-Type": "multipart/form-data; boundary=b"})[0] in (400, 403)
    wrong = dict(SETUP["key"], secret_key="wrong")
    assert refused("SignatureDoesNotMatch", client(wrong).list_buckets) == 403
    unknown = dict(SETUP["key"], access_key="AKIAUNKNOWN")
    assert refused("InvalidAccessKeyId", client(unknown).list_buckets) == 403
    mixed = dict(SETUP["key"], session_token=SETUP["grant"]["session_token"])
    assert refused("InvalidToken", client(mixed).list_buckets) == 403
    old = boto3.client("s3", endpoint_url=ENDPOINT, region_name="us-east-1", aws_access_key_id=SETUP["key"]["access_key"],
                       aws_secret_access_key=SETUP["key"]["secret_key"], config=Config(signature_version="s3"))
    refused("InvalidRequest", old.get_object, Bucket=BUCKET, Key="from")


def check_presigned_links():
    for credential, bucket, key in ((SETUP["key"], BUCKET, "link"), (SETUP["grant"], "jobs", "j1/out/link")):
        s3 = client(credential)
        where = {"Bucket": bucket, "Key": key}
        put = s3.generate_presigned_url("put_object", Params=where, ExpiresIn=60)
        assert http(put, "PUT", b"linked")[0] == 200
        link = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
        assert http(link) == (200, b"linked")
        assert http(link.replace("/link?", "/other?"))[0] == 403
        assert http(link.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))[0] == 403
        assert http(link, "PUT", b"over")[0] == 403
        week = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=7 * 24 * 3600)
        assert http(week)[0] == 200
        status, body = http(s3.generate_presigned_url("get_object", Params=where, ExpiresIn=7 * 24 * 3600 + 1))
        assert status == 400 and b"AuthorizationQueryParametersError" in body, (status, body)
        short = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=1)
        time.sleep(2.1)
        status, body = http(short)
        assert status == 403 and b"AccessDenied" in body, (status, body)
    link = client(SETUP["grant"]).generate_presigned_url("get_object", Params={"Bucket": "jobs", "Key": "j1/out/link"}, ExpiresIn=60)
    status, _ = http(link.replace("X-Amz-Security-Token=", "X-Amz-Was-Token="))
    assert status == 403


def check_grants():
    s3 = client(SETUP["grant"])
    own = {"Bucket": "jobs", "Key": "j1/out/a b"}
    s3.put_object(Body=b"result", **own)
    assert s3.get_object(**own)["Body"].read() == b"result"
    assert [o["Key"] for o in s3.list_objects_v2(Bucket="jobs", Prefix="j1/out/a")["Contents"]] == ["j1/out/a b"]
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == ["jobs"]
    assert refused("InvalidArgument", s3.put_object, Bucket="jobs", Key="j1/out/../in", Body=b"") == 400
    for key in ("j1/outside", "j1/in", "j2/out/a"):
        assert refused("AccessDenied", s3.put_object, Bucket="jobs", Key=key, Body=b"") == 403, key
        assert refused("AccessDenied", s3.get_object, Bucket="jobs", Key=key) == 403, key
        assert refused(("403", "AccessDenied"), s3.head_object, Bucket="jobs", Key=key) == 403, key
    for prefix in ("", "j1/", "j1/out", "j2/out/"):
        assert refused("AccessDenied", s3.list_objects_v2, Bucket="jobs", Prefix=prefix) == 403, prefix
        assert refused("AccessDenied", s3.list_objects, Bucket="jobs", Prefix=prefix) == 403, prefix
        assert refused("AccessDenied", s3.list_multipart_uploads, Bucket="jobs", Prefix=prefix) == 403, prefix
    assert refused("AccessDenied", s3.get_object, Bucket=BUCKET, Key="from") == 403
    assert refused("AccessDenied", s3.create_bucket, Bucket="mine") == 403
    assert refused("AccessDenied", s3.create_multipart_upload, Bucket="jobs", Key="j2/out/a") == 403
    S3.copy_object(Bucket=BUCKET, Key="taken", CopySource={"Bucket": "jobs", "Key": "j1/out/a b"})
    assert refused("AccessDenied", s3.copy_object, CopySource=f"{BUCKET}/from", **own) == 403
    assert refused("AccessDenied", s3.copy_object, CopySource="jobs/j1/out/a b", Bucket="jobs", Key="j2/a") == 403
    s3.copy_object(CopySource="jobs/j1/out/a b", Bucket="jobs", Key="j1/out/c")
    upload = {**own, "UploadId": s3.create_multipart_upload(**own)["UploadId"]}
    assert refused("AccessDenied", s3.upload_part_copy, CopySource=f"{BUCKET}/from", PartNumber=1, **upload) == 403
    s3.abort_multipart_upload(**upload)
    answer = s3.delete_objects(Bucket="jobs", Delete={"Objects": [{"Key": "j1/out/c"}, {"Key": "j2/out/a"}]})
    assert [d["Key"] for d in answer["Deleted"]] == ["j1/out/c"], answer
    assert [(e["Key"], e["Code"]) for e in answer["Errors"]] == [("j2/out/a", "AccessDenied")], answer


def check_verbs_of_grants():
    where = {"Bucket": "jobs", "Key": "j1/out/a b"}
    reader, writer = client(SETUP["reader"]), client(SETUP["writer"])
    assert reader.get_object(**where)["Body"].read() == b"result"
    assert refused("AccessDenied", reader.put_object, Body=b"", **where) == 403
    assert refused("AccessDenied", reader.delete_object, **where) == 403
    writer.put_object(Body=b"written", **where)
    assert refused("AccessDenied", writer.get_object, **where) == 403
    assert refused("AccessDenied", writer.list_objects_v2, Bucket="jobs", Prefix="j1/out/") == 403
    assert refused("AccessDenied", writer.delete_object, **where) == 403
    # Static keys read the built-in bucket and do not write to it.
    assert get("j1/out/a b", bucket="jobs") == b"written"
    assert refused("AccessDenied", S3.put_object, Body=b"", **where) == 403
    assert refused("AccessDenied", S3.delete_bucket, Bucket="jobs") == 403


def check_session_tokens():
    grant, other = SETUP["grant"], SETUP["reader"]
    where = {"Bucket": "jobs", "Key": "j1/out/a b"}
    stolen = dict(grant, session_token=other["session_token"])
    assert refused("InvalidToken", client(stolen).get_object, **where) == 403
    forged = dict(grant, session_token=grant["session_token"][:-2] + "AA")
    assert refused("InvalidToken", client(forged).get_object, **where) == 403
    foreign = SETUP["foreign"]
    assert refused("InvalidAccessKeyId", client(foreign).get_object, **where) == 403
    assert refused("InvalidToken", client(dict(grant, session_token=foreign["session_token"])).get_object, **where) == 403
    missing = {k: v for k, v in grant.items() if k != "session_token"}
    assert refused("AccessDenied", client(missing).get_object, **where) == 403
    wrong = dict(other, session_token=other["session_token"], secret_key=grant["secret_key"])
    assert refused("SignatureDoesNotMatch", client(wrong).get_object, **where) == 403
    time.sleep(max(0.0, SETUP["expired_at"] - time.time() + 0.1))
    assert refused("ExpiredToken", client(SETUP["expired"]).get_object, **where) == 403


def run(*command, expect=0, **more):
    # What the person who runs this has set for AWS is none of ours.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RCLONE_"))}
    environment = {
        **inherited, "NO_PROXY": "127.0.0.1", "AWS_ACCESS_KEY_ID": SETUP["key"]["access_key"], "AWS_SECRET_ACCESS_KEY": SETUP["key"]["secret_key"],
        "AWS_ENDPOINT_URL": ENDPOINT, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_MAX_ATTEMPTS": "1", **more,
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == expect, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def aws(*arguments, **more):
    return run(str(pathlib.Path(sys.executable).parent / "aws"), *arguments, **more)


def check_aws_command_line():
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        (here / "big").write_bytes(noise(30 * MB, "big"))
        tree = here / "tree"
        for name in ("a.txt", "b c.txt", "sub/ü.txt"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(name)
        aws("s3", "mb", "s3://cli")
        aws("s3", "cp", "--quiet", str(here / "big"), "s3://cli/big")
        aws("s3", "cp", "--quiet", "s3://cli/big", str(here / "back"))
        assert (here / "back").read_bytes() == (here / "big").read_bytes()
        aws("s3", "sync", str(tree), "s3://cli/tree")
        assert aws("s3", "sync", str(tree), "s3://cli/tree") == ""
        aws("s3", "sync", "s3://cli/tree", str(here / "copy"))
        run("diff", "-r", str(tree), str(here / "copy"))
        assert "PRE tree/" in aws("s3", "ls", "s3://cli")
        assert len(aws("s3", "ls", "--recursive", "s3://cli").splitlines()) == 4
        aws("s3", "mv", "s3://cli/tree/a.txt", "s3://cli/moved.txt")
        aws("s3", "cp", "--quiet", "s3://cli/big", "s3://cli/big2")
        assert S3.head_object(Bucket="cli", Key="big2")["ContentLength"] == 30 * MB
        assert aws("s3", "cp", "s3://cli/moved.txt", "-") == "a.txt"
        aws("s3", "rm", "s3://cli/moved.txt")
        aws("s3", "rb", "s3://cli", expect=1)
        aws("s3", "rb", "--force", "s3://cli")
        assert "cli" not in [b["Name"] for b in S3.list_buckets()["Buckets"]]
        token = {"AWS_SESSION_TOKEN": SETUP["grant"]["session_token"], "AWS_ACCESS_KEY_ID": SETUP["grant"]["access_key"],
                 "AWS_SECRET_ACCESS_KEY": SETUP["grant"]["secret_key"]}
        aws("s3", "cp", "--quiet", str(here / "big"), "s3://jobs/j1/out/big", **token)
        aws("s3", "cp", "--quiet", str(here / "big"), "s3://jobs/j2/big", expect=1, **token)


def check_rclone():
    if shutil.which("rclone") is None:
        print("   (rclone is not installed: left out)")
        return
    remote = {
        "RCLONE_CONFIG": "/dev/null", "RCLONE_CONFIG_MILL_TYPE": "s3", "RCLONE_CONFIG_MILL_PROVIDER": "Other", "RCLONE_CONFIG_MILL_ENDPOINT": ENDPOINT,
        "RCLONE_CONFIG_MILL_ACCESS_KEY_ID": SETUP["key"]["access_key"],
        "RCLONE_CONFIG_MILL_SECRET_ACCESS_KEY": SETUP["key"]["secret_key"], "RCLONE_CONFIG_MILL_REGION": "us-east-1",
    }
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "tree"
        for n, name in enumerate(("one", "two words", "deep/er/three", "deep/日本")):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(noise(20 * MB if n == 0 else 1000 * n, name))
        run("rclone", "mkdir", "mill:clone", **remote)
        run("rclone", "copy", "--s3-upload-cutoff", "8M", "--s3-chunk-size", "5M", str(tree), "mill:clone/x", **remote)
        run("rclone", "check", "--download", str(tree), "mill:clone/x", **remote)
        run("rclone", "check", str(tree), "mill:clone/x", **remote)
        run("rclone", "copy", "mill:clone/x", str(pathlib.Path(folder) / "back"), **remote)
        run("diff", "-r", str(tree), str(pathlib.Path(folder) / "back"))
        assert len(run("rclone", "lsf", "-R", "--files-only", "mill:clone", **remote).splitlines()) == 4
        run("rclone", "purge", "mill:clone", **remote)


def main():
    only = sys.argv[2:]
    checks = [(n, f) for n, f in list(globals().items()) if n.startswith("check_") and (not only or n in only)]
    for name, check in checks:
        started = time.monotonic()
        check()
        print(f"ok {name} ({time.monotonic() - started:.1f} s)", flush=True)
    print(f"{len(checks)} checks passed")


if __name__ == "__main__":
    main()
