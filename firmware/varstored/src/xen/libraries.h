// What the daemon uses of Xen's stable libraries and of its public interface.
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <xendevicemodel.h>
#include <xenevtchn.h>
#include <xenforeignmemory.h>
#include <xenstore.h>
#include <xen/memory.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/ioreq.h>
