"""The store in etcd, over the stubs of `aetcd`: its channel, its session, its calls and its watch."""
