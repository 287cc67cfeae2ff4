"""The store in etcd 3.4 and newer, over the generated stubs of `aetcd`; channel, session and watch are ours.

`address` reads the URL. `endpoint` is one member's channel; `session` chooses among them, logs in and decides
what may be tried again by what `failure` says of an error. On it stand `reading`, `transaction` and the
watch: `stream` is one connection's part of it, `assembly` makes whole revisions of its messages, `watching`
goes on after whatever ended the stream, and `news` keeps what the reader has not taken. `store` is all of it
behind `Store`.
"""
