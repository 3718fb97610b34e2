/*
 * Optional speedups: masking (RFC 6455 §5.3), and the usual cases of decoding a frame (RFC 6455 §5.2)
 * and of sending one.
 *
 * syncws/speedups.py has the same functions in Python, and chooses between them. Nothing here
 * keeps state but interned names. What is not said to be changed is only read: any number of threads
 * may call, with or without a GIL, in any number of interpreters. A bytearray or memoryview that
 * another thread writes to meanwhile is copied partly before and partly after; it stays where it is as
 * long as the call takes.
 *
 * The GIL is released while frames are handed to the kernel, else never: to mask a mebibyte takes some
 * 40 µs, but to get the GIL back while another thread computes takes a switch interval, 5 ms, which
 * was measured to cost 19 parts in 20.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>

#ifndef MS_WINDOWS
#include <sys/socket.h>
#endif

#define MASK 0x80
#define LENGTH_BITS 0x7F
#define CONTROL 0x08
#define FIN 0x80
#define TEXT 0x01
#define BINARY 0x02
#define KEY_SIZE 4

/*
 * XOR byte i with byte i modulo 4 of the key (RFC 6455 §5.3). Compilers turn each memcpy() of
 * a fixed size into a load or a store that may be unaligned, and the first loop into vectors.
 */
static void
mask_bytes(unsigned char *out, const unsigned char *in, size_t size, const unsigned char *key)
{
    uint32_t key32;
    uint64_t key64, words[4];
    size_t i = 0;

    memcpy(&key32, key, KEY_SIZE);
    key64 = (uint64_t)key32 << 32 | key32; /* the same on big-endian machines */
    for (; size - i >= sizeof(words); i += sizeof(words)) {
        memcpy(words, in + i, sizeof(words));
        words[0] ^= key64;
        words[1] ^= key64;
        words[2] ^= key64;
        words[3] ^= key64;
        memcpy(out + i, words, sizeof(words));
    }
    for (; size - i >= sizeof(key64); i += sizeof(key64)) {
        memcpy(words, in + i, sizeof(key64));
        words[0] ^= key64;
        memcpy(out + i, words, sizeof(key64));
    }
    for (; i < size; i++)
        out[i] = in[i] ^ key[i & 3];
}

static PyObject *
masked_copy(const unsigned char *data, Py_ssize_t size, const unsigned char *key)
{
    PyObject *masked = PyBytes_FromStringAndSize(NULL, size);

    /* Without bytes there is nothing to fill: all empty bytes are one shared object. */
    if (masked != NULL && size > 0)
        mask_bytes((unsigned char *)PyBytes_AS_STRING(masked), data, (size_t)size, key);
    return masked;
}

static int
check_count(const char *name, Py_ssize_t count, Py_ssize_t expected)
{
    if (count == expected)
        return 1;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", name, expected, count);
    return 0;
}

PyDoc_STRVAR(apply_mask_doc,
"apply_mask(data, key, /)\n--\n\n"
"Mask or unmask data, any contiguous buffer, with a key of 4 bytes; the two are the same.");

static PyObject *
apply_mask(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_buffer data;
    PyObject *key, *masked;

    if (!check_count("apply_mask", count, 2))
        return NULL;
    key = args[1];
    if (!PyBytes_Check(key)) {
        PyErr_SetString(PyExc_TypeError, "the masking key must be bytes");
        return NULL;
    }
    if (PyBytes_GET_SIZE(key) != KEY_SIZE) {
        PyErr_SetString(PyExc_ValueError, "the masking key must have 4 bytes");
        return NULL;
    }
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0)
        return NULL;
    masked = masked_copy(data.buf, data.len, (const unsigned char *)PyBytes_AS_STRING(key));
    PyBuffer_Release(&data);
    return masked;
}

/* Where the payload of a frame is. */
typedef struct {
    const unsigned char *key; /* NULL in a frame that is not masked */
    const unsigned char *payload;
    Py_ssize_t length;
} Frame;

/* Read a big-endian length of 2 or 8 bytes. */
static uint64_t
read_length(const unsigned char *bytes, int width)
{
    uint64_t length = 0;
    int i;

    for (i = 0; i < width; i++)
        length = length << 8 | bytes[i];
    return length;
}

/*
 * Find the payload of a whole and valid frame; `size` bytes may be read from `start` on.
 * Returns 0 in all other cases, which the decoder in Python tells apart.
 */
static int
find_frame(const unsigned char *start, Py_ssize_t size, int mask, const unsigned char *heads,
           Frame *frame)
{
    Py_ssize_t header = 2;
    uint64_t length;

    if (size < header || !heads[start[0]] || ((start[1] ^ mask) & MASK))
        return 0;
    length = start[1] & LENGTH_BITS;
    if (length > 125) {
        int width = length == 126 ? 2 : 8;

        /* RFC 6455 §5.5: control frames have at most 125 bytes. */
        if ((start[0] & CONTROL) || size < header + width)
            return 0;
        length = read_length(start + header, width);
        /* RFC 6455 §5.2: the minimal number of bytes must be used. */
        if (length < (width == 2 ? 126u : 65536u))
            return 0;
        header += width;
    }
    frame->key = NULL;
    if (mask & MASK) {
        frame->key = start + header;
        header += KEY_SIZE;
    }
    /* A length of 64 bits is compared to what is there, never added to anything. */
    if (size < header || length > (uint64_t)(size - header))
        return 0;
    frame->payload = start + header;
    frame->length = (Py_ssize_t)length;
    return 1;
}

/* Make a tuple of three; takes over the references, and fails if one of them is NULL. */
static PyObject *
make_result(PyObject *first, PyObject *second, PyObject *third)
{
    PyObject *result = PyTuple_New(3);

    if (first == NULL || second == NULL || third == NULL || result == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        Py_XDECREF(third);
        Py_XDECREF(result);
        return NULL;
    }
    PyTuple_SET_ITEM(result, 0, first);
    PyTuple_SET_ITEM(result, 1, second);
    PyTuple_SET_ITEM(result, 2, third);
    return result;
}

/* The arguments that both decoders begin with. */
typedef struct {
    const unsigned char *buffer;
    Py_ssize_t size, pos;
    int mask;
} Input;

/* Returns -1 with an exception, 0 if nothing can be at the position, else 1. */
static int
parse_input(const char *name, PyObject *const *args, Input *input)
{
    unsigned long mask;

    if (!PyBytes_Check(args[0]) || !PyLong_Check(args[1]) || !PyLong_Check(args[2])) {
        PyErr_Format(PyExc_TypeError, "%s() takes bytes, int, int at first", name);
        return -1;
    }
    mask = PyLong_AsUnsignedLongMask(args[2]);
    /* Clipped when it is out of range, and so still before the start or beyond the end. */
    input->pos = PyNumber_AsSsize_t(args[1], NULL);
    if (PyErr_Occurred())
        return -1;
    input->mask = (int)(mask & MASK);
    input->buffer = (const unsigned char *)PyBytes_AS_STRING(args[0]);
    input->size = PyBytes_GET_SIZE(args[0]);
    return input->pos >= 0 && input->pos <= input->size;
}

static PyObject *
unmasked_payload(const Frame *frame)
{
    if (frame->key == NULL)
        return PyBytes_FromStringAndSize((const char *)frame->payload, frame->length);
    return masked_copy(frame->payload, frame->length, frame->key);
}

PyDoc_STRVAR(whole_frame_doc,
"whole_frame(buffer, pos, mask, heads, /)\n--\n\n"
"Decode the frame at a position, if it is whole and valid; see syncws/speedups.py.");

static PyObject *
whole_frame(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Input input;
    Frame frame;
    int usable;

    if (!check_count("whole_frame", count, 4))
        return NULL;
    usable = parse_input("whole_frame", args, &input);
    if (usable < 0)
        return NULL;
    if (!PyBytes_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "the table of first bytes must be bytes");
        return NULL;
    }
    if (PyBytes_GET_SIZE(args[3]) != 256) {
        PyErr_SetString(PyExc_ValueError, "the table of first bytes must have 256 bytes");
        return NULL;
    }
    if (!usable
        || !find_frame(input.buffer + input.pos, input.size - input.pos, input.mask,
                       (const unsigned char *)PyBytes_AS_STRING(args[3]), &frame))
        Py_RETURN_NONE;
    return make_result(PyLong_FromLong(input.buffer[input.pos]), unmasked_payload(&frame),
                       PyLong_FromSsize_t(frame.payload + frame.length - input.buffer));
}

PyDoc_STRVAR(whole_message_doc,
"whole_message(buffer, pos, mask, limit, /)\n--\n\n"
"Decode the frame at a position, if it is a message; see syncws/speedups.py.");

static PyObject *
whole_message(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    /* RFC 6455 §5.2: FIN set, no RSV bits, text (1) or binary (2). */
    static const unsigned char messages[256] = {[FIN | TEXT] = 1, [FIN | BINARY] = 1};
    Input input;
    Frame frame;
    Py_ssize_t limit;
    int usable, text;
    PyObject *data, *string;

    if (!check_count("whole_message", count, 4))
        return NULL;
    usable = parse_input("whole_message", args, &input);
    if (usable < 0)
        return NULL;
    limit = PyNumber_AsSsize_t(args[3], NULL);
    if (limit == -1 && PyErr_Occurred())
        return NULL;
    if (!usable
        || !find_frame(input.buffer + input.pos, input.size - input.pos, input.mask, messages,
                       &frame)
        || frame.length > limit)
        Py_RETURN_NONE;
    text = input.buffer[input.pos] == (FIN | TEXT);
    data = unmasked_payload(&frame);
    if (data == NULL)
        return NULL;
    if (text) {
        string = PyUnicode_DecodeUTF8(PyBytes_AS_STRING(data), frame.length, NULL);
        if (string == NULL) {
            Py_DECREF(data);
            if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
                return NULL;
            PyErr_Clear();
            Py_RETURN_NONE;
        }
    } else {
        string = Py_None;
        Py_INCREF(string);
    }
    return make_result(data, string,
                       PyLong_FromSsize_t(frame.payload + frame.length - input.buffer));
}

PyDoc_STRVAR(message_block_doc,
"message_block(message, text, limit, /)\n--\n\n"
"Encode a message as a frame that is not masked, if it is short; see syncws/speedups.py.");

/* Header and payload in one (RFC 6455 §5.2), for payloads of less than 64 KiB. */
static PyObject *
join_frame(unsigned char head, const char *payload, Py_ssize_t size)
{
    Py_ssize_t header = size < 126 ? 2 : 4;
    PyObject *block = PyBytes_FromStringAndSize(NULL, header + size);
    unsigned char *bytes;

    if (block == NULL)
        return NULL;
    bytes = (unsigned char *)PyBytes_AS_STRING(block);
    bytes[0] = head;
    if (size < 126) {
        bytes[1] = (unsigned char)size;
    } else {
        bytes[1] = 126;
        bytes[2] = (unsigned char)(size >> 8);
        bytes[3] = (unsigned char)size;
    }
    memcpy(bytes + header, payload, (size_t)size);
    return block;
}

static PyObject *
message_block(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_ssize_t limit;
    int text;

    if (!check_count("message_block", count, 3))
        return NULL;
    text = PyObject_IsTrue(args[1]);
    if (text < 0)
        return NULL;
    limit = PyNumber_AsSsize_t(args[2], NULL);
    if (limit == -1 && PyErr_Occurred())
        return NULL;
    if (limit > 65535)
        limit = 65535;
    if (PyBytes_CheckExact(args[0]) && PyBytes_GET_SIZE(args[0]) <= limit)
        return join_frame(FIN | (text ? TEXT : BINARY),
                          PyBytes_AS_STRING(args[0]), PyBytes_GET_SIZE(args[0]));
    if (PyUnicode_CheckExact(args[0]) && PyUnicode_IS_READY(args[0])
        && PyUnicode_IS_ASCII(args[0]) && PyUnicode_GET_LENGTH(args[0]) <= limit)
        return join_frame(FIN | (args[1] == Py_False ? BINARY : TEXT),
                          (const char *)PyUnicode_DATA(args[0]), PyUnicode_GET_LENGTH(args[0]));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(append_result_doc,
"append_result(results, function, /, *args)\n--\n\n"
"Call a function and append what it returns to a list; see syncws/speedups.py.");

static PyObject *
append_result(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    PyObject *result;

    if (count < 2 || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "append_result() takes a list, a function and arguments");
        return NULL;
    }
    result = PyObject_Vectorcall(args[1], args + 2, (size_t)(count - 2), NULL);
    if (result == NULL)
        return NULL;
    /* Signal handlers run between instructions of the interpreter: there is none here. */
    count = PyList_Append(args[0], result);
    Py_DECREF(result);
    if (count < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The attributes and methods that try_send() and try_send_all() use, interned. */
enum {
    ACQUIRE, ADOPT, AT_REST, AWAITED, BEGUN, BREAK_OUTPUT, COUNTS, FILENO, FLAGS, OUTBOUND_LOCK, OUTBOX,
    RELEASE, SENDS, SEND_SOME, SENT_BYTES, SENT_MESSAGES, SETTLED, SOCK, TRANSPORT, NAME_COUNT
};

static const char *const name_texts[NAME_COUNT] = {
    [ACQUIRE] = "acquire", [ADOPT] = "_adopt", [AT_REST] = "_at_rest", [AWAITED] = "awaited",
    [BEGUN] = "_begun", [BREAK_OUTPUT] = "_break_output", [COUNTS] = "_counts", [FILENO] = "fileno", [FLAGS] = "flags",
    [OUTBOUND_LOCK] = "_outbound_lock", [OUTBOX] = "_outbox", [RELEASE] = "release",
    [SENDS] = "sends", [SEND_SOME] = "send_some", [SENT_BYTES] = "sent_bytes",
    [SENT_MESSAGES] = "_sent_messages", [SETTLED] = "settled", [SOCK] = "sock",
    [TRANSPORT] = "_transport",
};

typedef struct {
    PyObject *names[NAME_COUNT];
} State;

/* Whether an attribute is a certain object, such as True; -1 with an exception. */
static int
attribute_is(PyObject *owner, PyObject *name, PyObject *expected)
{
    PyObject *value = PyObject_GetAttr(owner, name);

    if (value == NULL)
        return -1;
    Py_DECREF(value);
    return value == expected;
}

/* Add to an attribute that is a number. Returns -1 with an exception, else 0. */
static int
add_to(PyObject *owner, PyObject *name, Py_ssize_t amount)
{
    PyObject *value = PyObject_GetAttr(owner, name), *number, *sum = NULL;
    int result;

    if (value == NULL)
        return -1;
    number = PyLong_FromSsize_t(amount);
    if (number != NULL)
        sum = PyNumber_Add(value, number);
    Py_DECREF(value);
    Py_XDECREF(number);
    if (sum == NULL)
        return -1;
    result = PyObject_SetAttr(owner, name, sum);
    Py_DECREF(sum);
    return result;
}

/* Take a lock if it is free. Returns -1 with an exception, else whether it was. */
static int
acquire(PyObject *const *names, PyObject *lock)
{
    PyObject *args[2] = {lock, Py_False};
    PyObject *taken = PyObject_VectorcallMethod(names[ACQUIRE], args,
                                                2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);

    if (taken == NULL)
        return -1;
    Py_DECREF(taken);
    return taken == Py_True;
}

/* Release a lock, also under an exception, which it keeps. Returns -1 with an exception, else 0. */
static int
release(PyObject *const *names, PyObject *lock)
{
    PyObject *type, *value, *traceback, *result;

    PyErr_Fetch(&type, &value, &traceback);
    result = PyObject_CallMethodNoArgs(lock, names[RELEASE]);
    if (result == NULL) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return -1;
    }
    Py_DECREF(result);
    PyErr_Restore(type, value, traceback);
    return 0;
}

/* A connection that a frame is sent to, from when its lock was taken until that is released. */
typedef struct {
    PyObject *connection, *lock, *outbox, *transport;
    Py_ssize_t sent; /* bytes that the socket took; -1 for none */
    int descriptor, flags, error; /* arguments of send(), and errno if it failed */
} Sender;

static void
clear_sender(Sender *sender)
{
    Py_CLEAR(sender->lock);
    Py_CLEAR(sender->outbox);
    Py_CLEAR(sender->transport);
}

/* Release the lock. Returns -1 with an exception, else 0. */
static int
close_sender(PyObject *const *names, Sender *sender)
{
    int result = release(names, sender->lock);

    clear_sender(sender);
    return result;
}

/* Convert a number. Returns -1 with an exception, else 0. */
static int
as_int(PyObject *number, int *result)
{
    *result = (int)PyLong_AsLong(number);
    return *result == -1 && PyErr_Occurred() ? -1 : 0;
}

static int
attribute_as_int(PyObject *owner, PyObject *name, int *result)
{
    PyObject *value = PyObject_GetAttr(owner, name);
    int failed;

    if (value == NULL)
        return -1;
    failed = as_int(value, result);
    Py_DECREF(value);
    return failed;
}

/* Find the arguments of send(). Returns -1 with an exception, else whether it is all that there is
   to sending: not if the transport does it in another way, or the socket is closed. */
static int
find_socket(PyObject *const *names, Sender *sender)
{
    PyObject *sock = PyObject_GetAttr(sender->transport, names[SOCK]);
    PyObject *send_some = sock == NULL ? NULL : PyObject_GetAttr(sender->transport, names[SEND_SOME]);
    PyObject *descriptor = NULL;
    int result = 0;

    if (send_some == NULL) {
        result = -1;
    } else if (PyCFunction_Check(send_some) && PyCFunction_GET_SELF(send_some) == sock) {
        descriptor = PyObject_CallMethodNoArgs(sock, names[FILENO]);
        result = descriptor == NULL
                || as_int(descriptor, &sender->descriptor) < 0
                || attribute_as_int(sender->transport, names[FLAGS], &sender->flags) < 0
            ? -1
            : sender->descriptor >= 0;
    }
    Py_XDECREF(descriptor);
    Py_XDECREF(send_some);
    Py_XDECREF(sock);
    return result;
}

/* Under the lock. Returns -1 with an exception, else whether the connection is at rest. */
static int
find_parts(PyObject *const *names, Sender *sender)
{
    int at_rest = attribute_is(sender->connection, names[AT_REST], Py_True);

    if (at_rest != 1)
        return at_rest;
    sender->outbox = PyObject_GetAttr(sender->connection, names[OUTBOX]);
    if (sender->outbox != NULL)
        sender->transport = PyObject_GetAttr(sender->outbox, names[TRANSPORT]);
    return sender->transport == NULL ? -1 : find_socket(names, sender);
}

/* Take the lock of a connection that is at rest. Returns -1 with an exception, else whether it was
   taken. */
static int
open_sender(PyObject *const *names, PyObject *connection, Sender *sender)
{
    int free;

    memset(sender, 0, sizeof *sender);
    sender->connection = connection;
    /* The service thread is about to take the lock, and locks are not fair. */
    free = attribute_is(connection, names[AWAITED], Py_False);
    if (free == 1) {
        sender->lock = PyObject_GetAttr(connection, names[OUTBOUND_LOCK]);
        free = sender->lock == NULL ? -1 : acquire(names, sender->lock);
    }
    if (free == 1) {
        free = find_parts(names, sender);
        if (free != 1 && release(names, sender->lock) < 0)
            free = -1;
    }
    if (free != 1)
        clear_sender(sender);
    return free;
}

/* Hand a frame to the socket; without the GIL. On Windows no connection is at rest, and nothing
   gets here. */
static void
send_block(Sender *sender, const char *data, size_t size)
{
#ifdef MS_WINDOWS
    (void)data, (void)size;
    sender->sent = -1;
    sender->error = EAGAIN;
#else
    do {
        sender->sent = send(sender->descriptor, data, size, sender->flags);
        sender->error = sender->sent < 0 ? errno : 0;
    } while (sender->error == EINTR);
#endif
}

/* Leave the rest of a block to the outbox: what Outbox.send_block() does. New reference or NULL. */
static PyObject *
leave_rest(PyObject *const *names, const Sender *sender, PyObject *block)
{
    PyObject *counts = PyObject_GetAttr(sender->outbox, names[COUNTS]);
    PyObject *sent = PyLong_FromSsize_t(sender->sent);
    int failed = counts == NULL || sent == NULL
        || PyObject_SetAttr(sender->connection, names[AT_REST], Py_False) < 0
        || PyList_SetSlice(counts, 0, PyList_GET_SIZE(counts), NULL) < 0
        || PyList_Append(counts, sent) < 0
        || PyObject_SetAttr(sender->outbox, names[BEGUN], block) < 0
        || PyObject_SetAttr(sender->outbox, names[SETTLED], Py_False) < 0;

    Py_XDECREF(counts);
    Py_XDECREF(sent);
    /* From here on any thread that flushes goes on with it, wherever an exception hits. */
    return failed ? NULL : PyObject_CallMethodNoArgs(sender->outbox, names[ADOPT]);
}

/* The socket failed. Returns False as a new reference, or NULL. */
static PyObject *
book_error(PyObject *const *names, const Sender *sender)
{
    PyObject *type, *error, *traceback, *result = NULL;

    errno = sender->error;
    PyErr_SetFromErrno(PyExc_OSError);
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (PyObject_SetAttr(sender->connection, names[AT_REST], Py_False) == 0)
        result = PyObject_CallMethodOneArg(sender->connection, names[BREAK_OUTPUT], error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    if (result == NULL)
        return NULL;
    Py_DECREF(result);
    Py_RETURN_FALSE;
}

/* Whether the socket failed, not just took nothing. */
static int
has_failed(const Sender *sender)
{
    return sender->sent < 0 && sender->error != EAGAIN && sender->error != EWOULDBLOCK;
}

/* Note what became of a frame. Returns True, False or what waits of it, as a new reference; or
   NULL. */
static PyObject *
book(PyObject *const *names, const Sender *sender, PyObject *block)
{
    PyObject *result = NULL;

    if (has_failed(sender))
        return book_error(names, sender);
    if (sender->sent < 0)
        Py_RETURN_FALSE; /* whoever tries again finds the same, and waits */
    /* What keeps the stream whole comes first, statistics then. */
    if (sender->sent < PyBytes_GET_SIZE(block)) {
        result = leave_rest(names, sender, block);
    } else if (add_to(sender->outbox, names[SENT_BYTES], sender->sent) == 0) {
        result = Py_True;
        Py_INCREF(result);
    }
    if (result != NULL
        && (add_to(sender->connection, names[SENT_MESSAGES], 1) < 0
            || add_to(sender->transport, names[SENDS], 1) < 0))
        Py_CLEAR(result);
    return result;
}

/* The arguments of both functions. Returns 0 with an exception. */
static int
check_arguments(const char *name, PyObject *const *args, Py_ssize_t count)
{
    if (!check_count(name, count, 2))
        return 0;
    if (!PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "the frame must be bytes");
        return 0;
    }
    return 1;
}

PyDoc_STRVAR(try_send_doc,
"try_send(connection, block, /)\n--\n\n"
"Send a frame if that can be done at once; see syncws/speedups.py.");

static PyObject *
try_send(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyObject *const *names = ((State *)PyModule_GetState(module))->names;
    PyObject *result;
    Sender sender;
    int opened;

    if (!check_arguments("try_send", args, count))
        return NULL;
    opened = open_sender(names, args[0], &sender);
    if (opened < 0)
        return NULL;
    if (!opened)
        Py_RETURN_FALSE;
    Py_BEGIN_ALLOW_THREADS
    send_block(&sender, PyBytes_AS_STRING(args[1]), (size_t)PyBytes_GET_SIZE(args[1]));
    Py_END_ALLOW_THREADS
    result = book(names, &sender, args[1]);
    if (close_sender(names, &sender) < 0)
        Py_CLEAR(result);
    return result;
}

/* How many connections a broadcast sends to before it releases the lock of the first: enough to
   keep ahead of clients that get the messages, few enough for others to wait 0.3 ms at most. */
#define BATCH 64

typedef struct {
    PyObject *const *names;
    PyObject *block;
    PyObject *rest; /* list of (connection, False or what waits) */
    Py_ssize_t sent; /* connections */
} Broadcast;

/* Count a connection as sent, or append it to the rest. Takes over the result, which may be NULL.
   Returns -1 with an exception, else 0. */
static int
add_result(Broadcast *broadcast, PyObject *connection, PyObject *result)
{
    PyObject *pair;
    int failed;

    if (result == Py_True) {
        Py_DECREF(result);
        broadcast->sent++;
        return 0;
    }
    if (result == NULL)
        return -1;
    pair = PyTuple_Pack(2, connection, result);
    Py_DECREF(result);
    failed = pair == NULL || PyList_Append(broadcast->rest, pair) < 0;
    Py_XDECREF(pair);
    return failed ? -1 : 0;
}

/* Take the locks of those that are at rest; the others are part of the rest. Returns -1 with
   an exception, else 0. */
static int
open_batch(Broadcast *broadcast, PyObject *const *connections, int size, Sender *senders, int *count)
{
    int i;

    for (i = 0; i < size; i++) {
        int opened = open_sender(broadcast->names, connections[i], &senders[*count]);

        if (opened < 0)
            return -1;
        if (opened == 1) {
            ++*count;
        } else {
            Py_INCREF(Py_False);
            if (add_result(broadcast, connections[i], Py_False) < 0)
                return -1;
        }
    }
    return 0;
}

/* Nothing else is done here: a client for which the next message is there when it has read one is
   not waiting, and needs not be woken. */
static void
send_batch(const Broadcast *broadcast, Sender *senders, int count)
{
    const char *data = PyBytes_AS_STRING(broadcast->block);
    size_t size = (size_t)PyBytes_GET_SIZE(broadcast->block);
    int i;

    Py_BEGIN_ALLOW_THREADS
    for (i = 0; i < count; i++)
        send_block(&senders[i], data, size);
    Py_END_ALLOW_THREADS
}

/* An exception that waits for its time: nothing may be called while it is set. */
typedef struct {
    PyObject *type, *value, *traceback;
} Failure;

/* Keep the exception that is set; of several, the first. */
static void
keep_failure(Failure *failure)
{
    if (failure->type == NULL)
        PyErr_Fetch(&failure->type, &failure->value, &failure->traceback);
    else
        PyErr_Clear();
}

/* Book what was sent, or what failed, and release the locks. */
static void
book_batch(Broadcast *broadcast, Sender *senders, int count, int failed, Failure *failure)
{
    int i;

    for (i = 0; i < count; i++) {
        PyObject *result;

        /* Who deals with an error may take other locks: it has its own one alone, at the end. */
        if (senders[i].lock == NULL || has_failed(&senders[i]) != failed)
            continue;
        result = book(broadcast->names, &senders[i], broadcast->block);
        if (add_result(broadcast, senders[i].connection, result) < 0)
            keep_failure(failure);
        if (close_sender(broadcast->names, &senders[i]) < 0)
            keep_failure(failure);
    }
}

/* Returns -1 with the first exception that there was, else 0. */
static int
broadcast_batch(Broadcast *broadcast, PyObject *const *connections, int size)
{
    Failure failure = {NULL, NULL, NULL};
    Sender senders[BATCH];
    int count = 0;

    if (open_batch(broadcast, connections, size, senders, &count) < 0)
        keep_failure(&failure);
    send_batch(broadcast, senders, count);
    book_batch(broadcast, senders, count, 0, &failure);
    book_batch(broadcast, senders, count, 1, &failure);
    if (failure.type == NULL)
        return 0;
    PyErr_Restore(failure.type, failure.value, failure.traceback);
    return -1;
}

PyDoc_STRVAR(try_send_all_doc,
"try_send_all(connections, block, /)\n--\n\n"
"Send a frame to all for which it can be done at once; see syncws/speedups.py.");

static PyObject *
try_send_all(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Broadcast broadcast = {((State *)PyModule_GetState(module))->names, NULL, NULL, 0};
    PyObject *const *connections, *result = NULL;
    Py_ssize_t i, size;

    if (!check_arguments("try_send_all", args, count))
        return NULL;
    if (!PyTuple_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "the connections must be a tuple");
        return NULL;
    }
    connections = &PyTuple_GET_ITEM(args[0], 0);
    size = PyTuple_GET_SIZE(args[0]);
    broadcast.block = args[1];
    broadcast.rest = PyList_New(0);
    if (broadcast.rest == NULL)
        return NULL;
    for (i = 0; i < size; i += BATCH)
        if (broadcast_batch(&broadcast, connections + i, (int)Py_MIN(BATCH, size - i)) < 0)
            goto done;
    result = Py_BuildValue("nO", broadcast.sent, broadcast.rest);
done:
    Py_DECREF(broadcast.rest);
    return result;
}

static int
intern_names(PyObject *module)
{
    State *state = PyModule_GetState(module);
    int i;

    for (i = 0; i < NAME_COUNT; i++) {
        state->names[i] = PyUnicode_InternFromString(name_texts[i]);
        if (state->names[i] == NULL)
            return -1;
    }
    return 0;
}

static void
free_module(void *module)
{
    State *state = PyModule_GetState((PyObject *)module);
    int i;

    for (i = 0; state != NULL && i < NAME_COUNT; i++)
        Py_XDECREF(state->names[i]);
}

static PyMethodDef methods[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_FASTCALL, apply_mask_doc},
    {"whole_frame", (PyCFunction)(void (*)(void))whole_frame, METH_FASTCALL, whole_frame_doc},
    {"append_result", (PyCFunction)(void (*)(void))append_result, METH_FASTCALL,
     append_result_doc},
    {"message_block", (PyCFunction)(void (*)(void))message_block, METH_FASTCALL,
     message_block_doc},
    {"try_send", (PyCFunction)(void (*)(void))try_send, METH_FASTCALL, try_send_doc},
    {"try_send_all", (PyCFunction)(void (*)(void))try_send_all, METH_FASTCALL, try_send_all_doc},
    {"whole_message", (PyCFunction)(void (*)(void))whole_message, METH_FASTCALL,
     whole_message_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    /* By way of an integer: ISO C has no conversion from functions to objects. */
    {Py_mod_exec, (void *)(uintptr_t)intern_names},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "syncws._speedups",
    .m_doc = "Masking, decoding and sending of whole frames in C.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_free = free_module,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&definition);
}
