# The last bytes of the image. hvmloader puts the image's end at 4 GiB, copies its last 64 KiB to F0000h and jumps to
# F000:FFF0 in real mode (tools/firmware/hvmloader in Xen's tree). This leads from there to the core, which lies in the image.
# Nothing here is relocated: addresses count back from the end of the copy.

.set RESET_CODE, reset_gdt_code - reset_gdt
.set RESET_DATA, reset_gdt_data - reset_gdt
.set SEGMENT_END, 0x10000               # as offset in the segment F000
.set COPY_END, 0x100000                 # as address

    .section .text.reset_vector, "ax"
    .balign 16
    .globl reset_vector_start
reset_vector_start:
reset_gdt:
    .quad 0
reset_gdt_code:
    .quad 0x00CF9A000000FFFF            # flat 32-bit code
reset_gdt_data:
    .quad 0x00CF92000000FFFF            # flat data
reset_gdt_pointer:
    .word reset_gdt_pointer - reset_gdt - 1
    .long COPY_END - (reset_vector_end - reset_gdt)

    .code16
real_mode:
    cli
    cld
    rdtsc                               # when the firmware's first instruction ran
    movl %eax, %esi
    movl %edx, %edi
    lgdtl %cs:SEGMENT_END - (reset_vector_end - reset_gdt_pointer)
    movl %cr0, %eax
    orl ${CR0_PE}, %eax
    movl %eax, %cr0
    ljmpl $RESET_CODE, $COPY_END - (reset_vector_end - protected_mode)

    .code32
protected_mode:
    movl $RESET_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl COPY_END - (reset_vector_end - hvm_entry_address), %ebp
    jmpl *%ebp

    .balign 16
    .code16
    jmp real_mode                       # F000:FFF0
    .balign 4, 0xF4
    .long 0xF4F4F4F4
    .long 0xF4F4F4F4
hvm_entry_address:
    .long 0                             # mkfd writes the address of hvm_entry here
    .globl reset_vector_end
reset_vector_end:
    .code64                             # what follows in this compilation
