#!/usr/bin/env python3
"""Writes a small real OCI image (two gzipped tar layers of random bytes) as an OCI layout, tagged v1, into the directory given."""
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile


def blob(root, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(root, "blobs", "sha256", digest), "wb") as file:
        file.write(data)
    return {"digest": "sha256:" + digest, "size": len(data)}


def main(root):
    os.makedirs(os.path.join(root, "blobs", "sha256"))
    layers, ids = [], []
    for name in ("one", "two"):
        plain = io.BytesIO()
        content = os.urandom(200_000)
        with tarfile.open(fileobj=plain, mode="w") as tar:
            info = tarfile.TarInfo("data/" + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        ids.append("sha256:" + hashlib.sha256(plain.getvalue()).hexdigest())
        layer = blob(root, gzip.compress(plain.getvalue(), mtime=0))
        layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **layer})
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(root, json.dumps(config).encode())},
        "layers": layers,
    }
    entry = {"mediaType": manifest["mediaType"], **blob(root, json.dumps(manifest).encode())}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
    with open(os.path.join(root, "index.json"), "w") as file:
        json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
    with open(os.path.join(root, "oci-layout"), "w") as file:
        json.dump({"imageLayoutVersion": "1.0.0"}, file)


main(sys.argv[1])
