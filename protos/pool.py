"""The private descriptor pool that every generated module of this package registers in."""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
