/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest of labctl's accelerator probe: a ROM in place of the BIOS. It switches from
 * the reset vector to 64-bit code, as a kernel does, prints a line to the first serial
 * port and ends QEMU with a known status (isa-debug-exit at port 0xf4).
 *
 * labctl/guests/probe.py has the assembled bytes, so that a probe needs no assembler;
 * tests/unit/test_probe.py compares the two.
 *
 * The ROM has 64 KiB. It ends at 4 GiB, where the reset vector is, and is also mapped at
 * 0xf0000; code below 1 MiB uses addresses in that mapping.
 */
#define ROM	0xf0000
#define PML4	0x1000
#define PDPT	0x2000
#define PD	0x3000
#define COM1	0x3f8
#define EXIT	0xf4

	.code16
	.globl	_start
_start:
	cli
	lgdtl	%cs:gdt_pointer
	movl	%cr0, %eax
	orb	$1, %al			/* protected mode */
	movl	%eax, %cr0
	ljmpl	$0x08, $(ROM + protected)

	.code32
protected:
	movw	$0x10, %ax
	movw	%ax, %ds
	/* Identity-map the first 2 MiB; memory is zero after power-on. */
	movl	$(PDPT | 3), PML4
	movl	$(PD | 3), PDPT
	movl	$0x83, PD
	movl	$PML4, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orb	$0x20, %al		/* PAE */
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	/* EFER */
	rdmsr
	orb	$1, %ah			/* long mode */
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax	/* paging */
	movl	%eax, %cr0
	ljmpl	$0x18, $(ROM + long_mode)

	.code64
long_mode:
	movl	$(ROM + token), %esi
	movl	$(token_end - token), %ecx
	movw	$COM1, %dx
	rep outsb
	movb	$0x2a, %al		/* QEMU's exit status is 2 * value + 1 */
	outb	%al, $EXIT
halt:
	hlt
	jmp	halt

	.balign	8, 0
gdt:
	.quad	0
	.quad	0x00cf9a000000ffff	/* 0x08: 32-bit code */
	.quad	0x00cf92000000ffff	/* 0x10: data */
	.quad	0x00af9a000000ffff	/* 0x18: 64-bit code */
gdt_pointer:
	.word	gdt_pointer - gdt - 1
	.long	ROM + gdt
token:
	.ascii	"labctl-probe: 64-bit code runs\n"
token_end:
