# From the domain builder, or from the reset vector, to Rust. We run wherever the file was loaded.
# PVH entry (docs/misc/pvh.pandoc in Xen's tree): 32-bit protected mode, paging off, flat segments, EBX = start information, no
# stack, no valid GDT, interrupts off. HVM entry: the same, with EBP = its own address, EDI:ESI = time stamp (reset_vector.s).
# AT&T syntax: the assembler takes "symbol - symbol" as a displacement only in this one.

.set CODE, gdt_code - gdt
.set DATA, gdt_data - gdt

    .section .text.start, "ax"
    .code32
    .globl hvm_entry
hvm_entry:
    leal here - hvm_entry(%ebp), %ebp
    movl %esi, %ecx
    movl %edi, %esi
    xorl %ebx, %ebx                     # no start information
    jmp located

    .globl pvh_entry
pvh_entry:
    cld
    rdtsc                               # when the firmware's first instruction ran
    movl %eax, %ecx
    movl %edx, %esi

    # There is no stack yet to learn our address with: the start information's magic number serves for one push.
    leal 4(%ebx), %esp
    call here
here:
    popl %ebp
    movl ${START_MAGIC}, (%ebx)

located:
    leal start_tsc - here(%ebp), %edi
    movl %ecx, (%edi)
    movl %esi, 4(%edi)
    leal start_stack_end - here(%ebp), %esp

    leal gdt - here(%ebp), %eax
    movl %eax, gdt_pointer - here + 2(%ebp)
    lgdtl gdt_pointer - here(%ebp)

    # Identity map of the first 4 GiB in pages of 2 MiB: one PML4, one PDPT, four page directories.
    leal start_tables - here(%ebp), %edi
    leal 0x1000 + {TABLE}(%edi), %eax
    movl %eax, (%edi)
    leal 0x1000(%edi), %edx
    leal 0x2000 + {TABLE}(%edi), %eax
    movl $4, %ecx
directories:
    movl %eax, (%edx)
    addl $8, %edx
    addl $0x1000, %eax
    loop directories
    leal 0x2000(%edi), %edx
    movl ${LARGE_PAGE}, %eax
    movl $2048, %ecx
pages:
    movl %eax, (%edx)
    addl $8, %edx
    addl $0x200000, %eax
    loop pages

    movl %cr4, %eax
    orl ${CR4_PAE}, %eax
    movl %eax, %cr4
    movl %edi, %cr3
    movl ${EFER}, %ecx
    rdmsr
    orl ${EFER_LME}, %eax
    wrmsr
    movl %cr0, %eax
    orl ${CR0_PG_PE}, %eax
    movl %eax, %cr0

    pushl $CODE
    leal long_mode - here(%ebp), %eax
    pushl %eax
    lretl

    .code64
long_mode:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    leaq image_start(%rip), %rdi
    call relocate
    leaq image_start(%rip), %rdi
    movl %ebx, %esi
    movq start_tsc(%rip), %rdx
    xorl %ebp, %ebp
    call {in_place}
    ud2

# Fills in the addresses of the copy of this image at RDI. All relocations are of the form "base + addend"; mkfd checks it.
    .globl relocate
relocate:
    leaq rela_start(%rip), %rsi
    leaq rela_end(%rip), %rdx
next_relocation:
    cmpq %rdx, %rsi
    jae relocated
    movq 16(%rsi), %rax
    addq %rdi, %rax
    movq (%rsi), %rcx
    movq %rax, (%rdi, %rcx)
    addq $24, %rsi
    jmp next_relocation
relocated:
    ret

# Continues at RDI on the stack that ends at RSI with the argument in RDX.
    .globl continue_on_stack
continue_on_stack:
    movq %rsi, %rsp
    movq %rdi, %rax
    movq %rdx, %rdi
    xorl %ebp, %ebp
    call *%rax
    ud2

    .section .data.start, "aw"
    .balign 4096
start_tables:
    .fill 6 * 4096, 1, 0
    .fill 49152, 1, 0
start_stack_end:
start_tsc:
    .quad 0
gdt:
    .quad 0
gdt_code:
    .quad 0x00AF9A000000FFFF            # 64-bit code
gdt_data:
    .quad 0x00CF92000000FFFF            # flat data
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long 0
