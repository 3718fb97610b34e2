/*
 * Optional speedups: masking (RFC 6455 §5.3), the usual cases of decoding a frame (RFC 6455 §5.2), of
 * receiving a message and of sending one, and what collects a message.
 *
 * syncws/speedups.py has the same functions in Python, and chooses between them. Nothing here
 * keeps state but interned names, and where classes have their slots. What is not said to be changed
 * is only read: any number of threads may call, with or without a GIL, in any number of interpreters. A
 * bytearray or memoryview that another thread writes to meanwhile is copied partly before and partly
 * after; it stays where it is as long as the call takes.
 *
 * The GIL is never released: a mebibyte takes some 40 µs, but to get the GIL back while another
 * thread computes takes a switch interval, 5 ms, which was measured to cost 19 parts in 20.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdint.h>
#include <string.h>

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

#define NOT_ASCII UINT64_C(0x8080808080808080)

/* Tell whether all bytes are ASCII. */
static int
is_ascii(const unsigned char *data, size_t size)
{
    uint64_t word, seen = 0;
    unsigned char rest = 0;
    size_t i = 0;

    for (; size - i >= sizeof(word); i += sizeof(word)) {
        memcpy(&word, data + i, sizeof(word));
        seen |= word;
    }
    for (; i < size; i++)
        rest |= data[i];
    return !(seen & NOT_ASCII) && !(rest & 0x80);
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

/* The string that a payload stands for; NULL with an exception, such as UnicodeDecodeError. */
static PyObject *
unmasked_string(const Frame *frame)
{
    PyObject *string, *decoded;

    if (frame->key == NULL || frame->length == 0)
        return PyUnicode_DecodeUTF8((const char *)frame->payload, frame->length, NULL);
    /* Unmasked right into the string, which it is if it is ASCII. */
    string = PyUnicode_New(frame->length, 127);
    if (string == NULL)
        return NULL;
    mask_bytes(PyUnicode_DATA(string), frame->payload, (size_t)frame->length, frame->key);
    if (is_ascii(PyUnicode_DATA(string), (size_t)frame->length))
        return string;
    decoded = PyUnicode_DecodeUTF8(PyUnicode_DATA(string), frame->length, NULL);
    Py_DECREF(string);
    return decoded;
}

/* RFC 6455 §5.2: FIN set, no RSV bits, text (1) or binary (2). */
static const unsigned char message_heads[256] = {[FIN | TEXT] = 1, [FIN | BINARY] = 1};

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
        || !find_frame(input.buffer + input.pos, input.size - input.pos, input.mask,
                       message_heads, &frame)
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

/* The attributes and methods of connections, and what they are made of, that are used here. */
enum {
    ACQUIRE, ADAPT, ADOPT, AT_REST, AWAITED, BEGUN, BREAK_OUTPUT, BUFFER, CLOSING, COUNTS, DECODER,
    EOF_, FLAGS, GIVEN_BACK, HUNGRY, INBOUND, IS_SIMPLE, MASKED, OUTBOUND_LOCK, OUTBOX, OVER, POS,
    READER, READ_SIZE, RECEIVED, RECEIVED_BYTES, RECV, RELEASE, SENDS, SEND_SOME, SENT_BYTES,
    SENT_MESSAGES, SETTLED, STREAMING, TORN, TRANSPORT, WAIT_FOR_MUCH, WHOLE_LIMIT, WHOLE_MESSAGES,
    NAME_COUNT
};

static const char *const name_texts[NAME_COUNT] = {
    [ACQUIRE] = "acquire", [ADAPT] = "_adapt", [ADOPT] = "_adopt", [AT_REST] = "_at_rest",
    [AWAITED] = "awaited", [BEGUN] = "_begun", [BREAK_OUTPUT] = "_break_output",
    [BUFFER] = "buffer", [CLOSING] = "_closing", [COUNTS] = "_counts", [DECODER] = "decoder",
    [EOF_] = "_eof", [FLAGS] = "flags", [GIVEN_BACK] = "_given_back", [HUNGRY] = "_hungry",
    [INBOUND] = "_inbound", [IS_SIMPLE] = "_is_simple", [MASKED] = "masked",
    [OUTBOUND_LOCK] = "_outbound_lock", [OUTBOX] = "_outbox", [OVER] = "over", [POS] = "pos",
    [READER] = "_reader", [READ_SIZE] = "_read_size", [RECEIVED] = "_received",
    [RECEIVED_BYTES] = "_received_bytes", [RECV] = "recv", [RELEASE] = "release",
    [SENDS] = "sends", [SEND_SOME] = "send_some", [SENT_BYTES] = "sent_bytes",
    [SENT_MESSAGES] = "_sent_messages", [SETTLED] = "settled", [STREAMING] = "_streaming",
    [TORN] = "_torn", [TRANSPORT] = "_transport", [WAIT_FOR_MUCH] = "_wait_for_much",
    [WHOLE_LIMIT] = "whole_limit", [WHOLE_MESSAGES] = "_whole_messages",
};

/* Classes that know_slots() is told of. */
#define MAX_CLASSES 12

typedef struct {
    PyObject *names[NAME_COUNT];
    PyTypeObject *classes[MAX_CLASSES];
    Py_ssize_t offsets[MAX_CLASSES][NAME_COUNT]; /* of slots in their objects; 0: no slot */
    int class_count;
} State;

/* An object, and where its slots are if that is known. */
typedef struct {
    PyObject *object;
    const Py_ssize_t *offsets;
} Owner;

#ifndef Py_GIL_DISABLED

/* Whether the attributes of a class are what they seem, without __getattr__() and the like. */
static int
computes_nothing(const PyTypeObject *type)
{
    return type->tp_getattro == PyObject_GenericGetAttr
        && type->tp_setattro == PyObject_GenericSetAttr;
}

/* Where the objects of a class have a slot (__slots__); 0 if it has none. Sets no exception. */
static Py_ssize_t
find_slot(PyTypeObject *type, PyObject *name)
{
    PyObject *found = PyObject_GetAttr((PyObject *)type, name);
    Py_ssize_t offset = 0;

    if (found == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (Py_TYPE(found) == &PyMemberDescr_Type && PyType_IsSubtype(type, PyDescr_TYPE(found))) {
        const PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;

        if (member->type == T_OBJECT_EX && !(member->flags & READONLY))
            offset = member->offset;
    }
    Py_DECREF(found);
    return offset;
}

/* Where the objects of a class have their slots, or NULL. */
static const Py_ssize_t *
find_offsets(const State *state, PyTypeObject *type)
{
    int i;

    for (i = 0; i < state->class_count; i++)
        if (state->classes[i] == type)
            return state->offsets[i];
    /* Classes of connections: what those derived from the first one inherit is in the same place. */
    if (state->class_count > 0 && PyType_IsSubtype(type, state->classes[0])
        && computes_nothing(type))
        return state->offsets[0];
    return NULL;
}

#endif

PyDoc_STRVAR(know_slots_doc,
"know_slots(connection, *others)\n--\n\n"
"Find out where the slots of classes are; see syncws/speedups.py.");

static PyObject *
know_slots(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    Py_ssize_t i;

    for (i = 0; i < count; i++)
        if (!PyType_Check(args[i])) {
            PyErr_SetString(PyExc_TypeError, "know_slots() takes classes");
            return NULL;
        }
#ifndef Py_GIL_DISABLED
    for (i = 0; i < count && state->class_count < MAX_CLASSES; i++) {
        PyTypeObject *type = (PyTypeObject *)args[i];
        int name;

        /* No metaclass: nothing but this runs meanwhile. */
        if (find_offsets(state, type) != NULL || !computes_nothing(type)
            || Py_TYPE(type) != &PyType_Type)
            continue;
        for (name = 0; name < NAME_COUNT; name++)
            state->offsets[state->class_count][name] = find_slot(type, state->names[name]);
        Py_INCREF(type);
        state->classes[state->class_count++] = type;
    }
#else
    (void)state; /* slots that other threads write to are read by the interpreter only */
#endif
    Py_RETURN_NONE;
}

static Owner
look_at(const State *state, PyObject *object)
{
    static const Py_ssize_t no_slots[NAME_COUNT];
    Owner owner = {object, no_slots};

#ifndef Py_GIL_DISABLED
    const Py_ssize_t *offsets = find_offsets(state, Py_TYPE(object));

    if (offsets != NULL)
        owner.offsets = offsets;
#else
    (void)state;
#endif
    return owner;
}

static PyObject **
slot_of(const Owner *owner, int name)
{
    return (PyObject **)(void *)((char *)owner->object + owner->offsets[name]);
}

/* The value of an attribute, as a new reference; NULL with an exception. */
static PyObject *
get(const State *state, const Owner *owner, int name)
{
    if (owner->offsets[name] > 0 && *slot_of(owner, name) != NULL) {
        PyObject *value = *slot_of(owner, name);

        Py_INCREF(value);
        return value;
    }
    return PyObject_GetAttr(owner->object, state->names[name]);
}

/* Returns -1 with an exception, else 0. */
static int
set(const State *state, const Owner *owner, int name, PyObject *value)
{
    if (owner->offsets[name] > 0) {
        PyObject **slot = slot_of(owner, name), *old = *slot;

        Py_INCREF(value);
        *slot = value;
        Py_XDECREF(old);
        return 0;
    }
    return PyObject_SetAttr(owner->object, state->names[name], value);
}

/* Whether an attribute is a certain object, such as True; -1 with an exception. */
static int
attribute_is(const State *state, const Owner *owner, int name, PyObject *expected)
{
    PyObject *value = get(state, owner, name);

    if (value == NULL)
        return -1;
    Py_DECREF(value);
    return value == expected;
}

/* The value of an attribute that is a number; -1 with an exception, or if it is that. */
static Py_ssize_t
get_size(const State *state, const Owner *owner, int name)
{
    PyObject *value = get(state, owner, name);
    Py_ssize_t size;

    if (value == NULL)
        return -1;
    size = PyNumber_AsSsize_t(value, NULL);
    Py_DECREF(value);
    return size;
}

/* Add to an attribute that is a number. Returns -1 with an exception, else 0. */
static int
add_to(const State *state, const Owner *owner, int name, Py_ssize_t amount)
{
    PyObject *value = get(state, owner, name), *sum = NULL;
    long long number;
    int overflow, result;

    if (value == NULL)
        return -1;
    number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (!overflow && !(number == -1 && PyErr_Occurred()))
        sum = PyLong_FromLongLong(number + amount);
    Py_DECREF(value);
    if (sum == NULL)
        return -1;
    result = set(state, owner, name, sum);
    Py_DECREF(sum);
    return result;
}

/* What try_send() has at hand. */
typedef struct {
    const State *state;
    Owner connection, outbox, transport;
    PyObject *block;
} Sender;

/* The socket's send(), as the transport has it. Returns a new reference, or NULL. */
static PyObject *
call_send(const Sender *sender)
{
    PyObject *flags = get(sender->state, &sender->transport, FLAGS);
    PyObject *args[3] = {NULL, sender->block, flags}, *send_some, *sent;

    if (flags == NULL)
        return NULL;
    send_some = get(sender->state, &sender->transport, SEND_SOME);
    sent = send_some == NULL ? NULL
        : PyObject_Vectorcall(send_some, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_XDECREF(send_some);
    Py_DECREF(flags);
    return sent;
}

/* Leave the rest of a block to the outbox: what Outbox.send_block() does. New reference or NULL. */
static PyObject *
leave_rest(const Sender *sender, PyObject *sent)
{
    const State *state = sender->state;
    PyObject *counts = get(state, &sender->outbox, COUNTS);
    int failed = counts == NULL
        || set(state, &sender->connection, AT_REST, Py_False) < 0
        || PyList_SetSlice(counts, 0, PyList_GET_SIZE(counts), NULL) < 0
        || PyList_Append(counts, sent) < 0
        || set(state, &sender->outbox, BEGUN, sender->block) < 0
        || set(state, &sender->outbox, SETTLED, Py_False) < 0;

    Py_XDECREF(counts);
    /* From here on any thread that flushes goes on with it, wherever an exception hits. */
    return failed ? NULL : PyObject_CallMethodNoArgs(sender->outbox.object, state->names[ADOPT]);
}

/* Have a connection handle the current exception, an OSError. Returns -1 with another, else 0. */
static int
pass_error(const State *state, PyObject *connection, int method)
{
    PyObject *type, *value, *traceback, *result;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    result = PyObject_CallMethodOneArg(connection, state->names[method], value);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Nothing was sent. Returns False as a new reference, or NULL. */
static PyObject *
handle_error(const Sender *sender)
{
    PyObject *type, *value, *traceback;

    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return NULL;
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError)) {
        PyErr_Clear(); /* whoever tries again finds the same, and waits */
        Py_RETURN_FALSE;
    }
    PyErr_Fetch(&type, &value, &traceback);
    if (set(sender->state, &sender->connection, AT_REST, Py_False) < 0)
        return NULL;
    PyErr_Restore(type, value, traceback);
    /* The kernel tells an error once: who tries again would see another one. */
    if (pass_error(sender->state, sender->connection.object, BREAK_OUTPUT) < 0)
        return NULL;
    Py_RETURN_FALSE;
}

/* Under the outbound lock: True, False or what waits, as a new reference; or NULL. */
static PyObject *
send_at_rest(const Sender *sender)
{
    const State *state = sender->state;
    PyObject *sent = call_send(sender), *result = NULL;
    Py_ssize_t size;

    if (sent == NULL)
        return handle_error(sender);
    size = PyLong_AsSsize_t(sent);
    if (size == -1 && PyErr_Occurred()) {
        Py_DECREF(sent);
        return NULL;
    }
    /* What keeps the stream whole comes first, statistics then. */
    if (size < PyBytes_GET_SIZE(sender->block)) {
        result = leave_rest(sender, sent);
    } else if (add_to(state, &sender->outbox, SENT_BYTES, size) == 0) {
        result = Py_True;
        Py_INCREF(result);
    }
    Py_DECREF(sent);
    if (result != NULL
        && (add_to(state, &sender->connection, SENT_MESSAGES, 1) < 0
            || add_to(state, &sender->transport, SENDS, 1) < 0))
        Py_CLEAR(result);
    return result;
}

/* As send_at_rest(), if the connection is at rest, else False. */
static PyObject *
send_if_at_rest(State *state, const Owner *connection, PyObject *block)
{
    Sender sender = {state, *connection, {NULL, NULL}, {NULL, NULL}, block};
    PyObject *outbox, *transport, *result = NULL;
    int at_rest = attribute_is(state, connection, AT_REST, Py_True);

    if (at_rest < 0)
        return NULL;
    if (!at_rest)
        Py_RETURN_FALSE;
    outbox = get(state, connection, OUTBOX);
    if (outbox == NULL)
        return NULL;
    sender.outbox = look_at(state, outbox);
    transport = get(state, &sender.outbox, TRANSPORT);
    if (transport != NULL) {
        sender.transport = look_at(state, transport);
        result = send_at_rest(&sender);
        Py_DECREF(transport);
    }
    Py_DECREF(outbox);
    return result;
}

/* Take a lock if it is free. Returns -1 with an exception, else whether it was. */
static int
acquire(const State *state, PyObject *lock)
{
    PyObject *args[2] = {lock, Py_False};
    PyObject *taken = PyObject_VectorcallMethod(state->names[ACQUIRE], args,
                                                2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);

    if (taken == NULL)
        return -1;
    Py_DECREF(taken);
    return taken == Py_True;
}

/* Release a lock, also under an exception, which it keeps. Returns -1 with an exception, else 0. */
static int
release(const State *state, PyObject *lock)
{
    PyObject *type, *value, *traceback, *result;

    PyErr_Fetch(&type, &value, &traceback);
    result = PyObject_CallMethodNoArgs(lock, state->names[RELEASE]);
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

PyDoc_STRVAR(try_send_doc,
"try_send(connection, block, /)\n--\n\n"
"Send a frame if that can be done at once; see syncws/speedups.py.");

static PyObject *
try_send(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    Owner connection;
    PyObject *lock, *result;
    int free;

    if (!check_count("try_send", count, 2))
        return NULL;
    if (!PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "the frame must be bytes");
        return NULL;
    }
    connection = look_at(state, args[0]);
    /* The service thread is about to take the lock, and locks are not fair. */
    free = attribute_is(state, &connection, AWAITED, Py_False);
    if (free < 0)
        return NULL;
    if (!free)
        Py_RETURN_FALSE;
    lock = get(state, &connection, OUTBOUND_LOCK);
    if (lock == NULL)
        return NULL;
    free = acquire(state, lock);
    if (free == 1) {
        result = send_if_at_rest(state, &connection, args[1]);
        if (release(state, lock) < 0)
            Py_CLEAR(result);
    } else {
        result = free < 0 ? NULL : Py_False;
        Py_XINCREF(result);
    }
    Py_DECREF(lock);
    return result;
}

/* What receive_whole() has at hand. */
typedef struct {
    Owner connection, inbound, decoder;
    PyObject *box;        /* list that the message goes to */
    int decode;           /* whether it shall be a string; -1 if as it came */
    Py_ssize_t read_size; /* of connections that receive little */
    PyObject *buffer;     /* bytes */
    Py_ssize_t pos;       /* of the message in it */
    int is_new;           /* whether they were read right now */
} Receiver;

/* Read from the socket. Returns -1 with an exception, 0 if the connection has ended, else 1. */
static int
read_socket(State *state, Receiver *receiver)
{
    PyObject *transport = get(state, &receiver->connection, TRANSPORT);
    PyObject *size = get(state, &receiver->connection, READ_SIZE), *args[2] = {NULL, size}, *recv;
    Owner owner;

    if (transport != NULL && size != NULL) {
        owner = look_at(state, transport);
        recv = get(state, &owner, RECV);
        if (recv != NULL)
            receiver->buffer = PyObject_Vectorcall(
                recv, args + 1, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_XDECREF(recv);
    }
    Py_XDECREF(transport);
    Py_XDECREF(size);
    receiver->is_new = receiver->buffer != NULL;
    if (receiver->is_new)
        return 1;
    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return -1;
    return pass_error(state, receiver->connection.object, EOF_);
}

/* Wait before a large buffer is made, which would be kept while waiting. Returns as read_socket(). */
static int
wait_for_much(const State *state, const Receiver *receiver)
{
    Py_ssize_t size = get_size(state, &receiver->connection, READ_SIZE);
    PyObject *waited;

    if (size == -1 && PyErr_Occurred())
        return -1;
    if (size <= receiver->read_size)
        return 1;
    waited = PyObject_CallMethodNoArgs(receiver->connection.object, state->names[WAIT_FOR_MUCH]);
    Py_XDECREF(waited);
    if (waited != NULL)
        return 1;
    if (!PyErr_ExceptionMatches(PyExc_OSError))
        return -1;
    return pass_error(state, receiver->connection.object, EOF_);
}

/* Have input in the buffer. Returns as read_socket(). */
static int
find_input(State *state, Receiver *receiver)
{
    int hungry = attribute_is(state, &receiver->connection, HUNGRY, Py_True);

    if (hungry < 0)
        return -1;
    if (hungry) {
        int ready = wait_for_much(state, receiver);

        return ready == 1 ? read_socket(state, receiver) : ready;
    }
    receiver->buffer = get(state, &receiver->decoder, BUFFER);
    receiver->pos = get_size(state, &receiver->decoder, POS);
    return receiver->buffer == NULL || PyErr_Occurred() ? -1 : 1;
}

/* The message as the application gets it; NULL, perhaps with an exception. */
static PyObject *
make_message(const Frame *frame, int text, int decode)
{
    PyObject *string;

    if (!text)
        return decode > 0 ? NULL : unmasked_payload(frame);
    string = unmasked_string(frame);
    if (string == NULL || decode)
        return string;
    Py_DECREF(string);
    return unmasked_payload(frame);
}

/* Returns -1 with an exception, else whether the buffer began with a message, now in the box. */
static int
take_message(const State *state, Receiver *receiver)
{
    const unsigned char *input = (const unsigned char *)PyBytes_AS_STRING(receiver->buffer);
    Py_ssize_t size = PyBytes_GET_SIZE(receiver->buffer), pos = receiver->pos;
    Py_ssize_t mask = get_size(state, &receiver->decoder, MASKED);
    Py_ssize_t limit = get_size(state, &receiver->inbound, WHOLE_LIMIT);
    Frame frame;
    PyObject *message;
    int text;

    if (PyErr_Occurred())
        return -1;
    if (pos < 0 || pos >= size
        || !find_frame(input + pos, size - pos, (int)mask, message_heads, &frame)
        || frame.length > limit)
        return 0;
    text = input[pos] == (FIN | TEXT);
    message = make_message(&frame, text, receiver->decode);
    if (message == NULL) {
        if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    PyList_SetItem(receiver->box, 0, message);
    PyList_SetItem(receiver->box, 1, PyBool_FromLong(text));
    receiver->pos = frame.payload + frame.length - input;
    return 1;
}

/* Note what is left in the buffer. Returns -1 with an exception, else 0. */
static int
note_rest(const State *state, const Receiver *receiver)
{
    int used_up = receiver->pos == PyBytes_GET_SIZE(receiver->buffer), failed;
    PyObject *pos, *rest;

    if (used_up && receiver->is_new)
        return 0;
    pos = PyLong_FromSsize_t(used_up ? 0 : receiver->pos);
    rest = used_up ? PyBytes_FromStringAndSize(NULL, 0) : receiver->buffer;
    failed = rest == NULL || pos == NULL
        || set(state, &receiver->decoder, BUFFER, rest) < 0
        || set(state, &receiver->decoder, POS, pos) < 0
        || set(state, &receiver->connection, HUNGRY, used_up ? Py_True : Py_False) < 0;
    Py_XDECREF(pos);
    if (used_up)
        Py_XDECREF(rest);
    return failed ? -1 : 0;
}

/* Count what was read, and adapt the size of reads to it. Returns -1 with an exception, else 0. */
static int
count_input(const State *state, const Receiver *receiver)
{
    Py_ssize_t size = PyBytes_GET_SIZE(receiver->buffer), read_size;
    PyObject *number, *adapted;

    if (add_to(state, &receiver->connection, RECEIVED_BYTES, size) < 0)
        return -1;
    read_size = get_size(state, &receiver->connection, READ_SIZE);
    if (read_size == -1 && PyErr_Occurred())
        return -1;
    if (size < read_size && read_size <= receiver->read_size)
        return 0;
    number = PyLong_FromSsize_t(size);
    if (number == NULL)
        return -1;
    adapted = PyObject_CallMethodOneArg(receiver->connection.object, state->names[ADAPT], number);
    Py_DECREF(number);
    Py_XDECREF(adapted);
    return adapted == NULL ? -1 : 0;
}

/* Keep what was read, but not decoded, and an exception. Returns -1 with another one, else 0. */
static int
keep_input(const State *state, const Receiver *receiver)
{
    PyObject *type, *value, *traceback, *received;
    int result;

    if (!receiver->is_new)
        return 0;
    PyErr_Fetch(&type, &value, &traceback);
    received = get(state, &receiver->connection, RECEIVED);
    result = received == NULL ? -1 : PyList_Append(received, receiver->buffer);
    Py_XDECREF(received);
    if (result == 0) {
        PyErr_Restore(type, value, traceback);
        return 0;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
}

/* Input was lost: have the connection end, rather than go on with a hole. Keeps the exception. */
static void
tear(const State *state, const Receiver *receiver)
{
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    if (set(state, &receiver->connection, TORN, Py_True) < 0
        || set(state, &receiver->connection, HUNGRY, Py_False) < 0)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

/* With the reader role, and all attributes at hand. Returns as take_message(). */
static int
receive_message(State *state, Receiver *receiver)
{
    int found = find_input(state, receiver);

    if (found == 1)
        found = PyBytes_CheckExact(receiver->buffer) ? take_message(state, receiver) : 0;
    if (found == 1 ? note_rest(state, receiver) < 0 : keep_input(state, receiver) < 0) {
        tear(state, receiver);
        return -1;
    }
    if (found == 1
        && (add_to(state, &receiver->connection, WHOLE_MESSAGES, 1) < 0
            || set(state, &receiver->connection, IS_SIMPLE, Py_True) < 0
            || (receiver->is_new && count_input(state, receiver) < 0)))
        return -1;
    return found;
}

/* Whether recv() may go the shortest way; -1 with an exception. */
static int
is_simple(State *state, const Owner *connection)
{
    int simple = attribute_is(state, connection, IS_SIMPLE, Py_True);
    PyObject *closing, *given_back;
    Owner owner;

    if (simple != 1)
        return simple;
    simple = attribute_is(state, connection, STREAMING, Py_False);
    if (simple != 1)
        return simple;
    given_back = get(state, connection, GIVEN_BACK);
    if (given_back == NULL)
        return -1;
    simple = PyObject_Not(given_back);
    Py_DECREF(given_back);
    if (simple != 1)
        return simple;
    closing = get(state, connection, CLOSING);
    if (closing == NULL)
        return -1;
    owner = look_at(state, closing);
    simple = attribute_is(state, &owner, OVER, Py_False);
    Py_DECREF(closing);
    return simple;
}

/* With the reader role. Returns as take_message(). */
static int
receive_alone(State *state, Receiver *receiver)
{
    int found = is_simple(state, &receiver->connection);
    PyObject *inbound, *decoder;

    if (found != 1)
        return found;
    if (set(state, &receiver->connection, IS_SIMPLE, Py_False) < 0) /* until all has gone well */
        return -1;
    inbound = get(state, &receiver->connection, INBOUND);
    if (inbound == NULL)
        return -1;
    receiver->inbound = look_at(state, inbound);
    decoder = get(state, &receiver->inbound, DECODER);
    found = -1;
    if (decoder != NULL) {
        receiver->decoder = look_at(state, decoder);
        found = receive_message(state, receiver);
        Py_DECREF(decoder);
    }
    Py_DECREF(inbound);
    Py_CLEAR(receiver->buffer);
    return found;
}

PyDoc_STRVAR(receive_whole_doc,
"receive_whole(connection, whole, decode, read_size, /)\n--\n\n"
"Receive a message by the shortest way; see syncws/speedups.py.");

static PyObject *
receive_whole(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    State *state = PyModule_GetState(module);
    Receiver receiver = {.decode = -1};
    PyObject *lock;
    int found;

    if (!check_count("receive_whole", count, 4))
        return NULL;
    if (!PyList_CheckExact(args[1]) || PyList_GET_SIZE(args[1]) != 2) {
        PyErr_SetString(PyExc_TypeError, "the box must be a list of two");
        return NULL;
    }
    if (args[2] != Py_None && (receiver.decode = PyObject_IsTrue(args[2])) < 0)
        return NULL;
    receiver.read_size = PyNumber_AsSsize_t(args[3], NULL);
    if (receiver.read_size == -1 && PyErr_Occurred())
        return NULL;
    receiver.box = args[1];
    receiver.connection = look_at(state, args[0]);
    lock = get(state, &receiver.connection, READER);
    if (lock == NULL)
        return NULL;
    found = acquire(state, lock);
    if (found == 1) {
        found = receive_alone(state, &receiver);
        if (release(state, lock) < 0)
            found = -1;
    }
    Py_DECREF(lock);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

/*
 * Collector: the payload of a message as it arrives in pieces; see syncws/collector.py.
 *
 * It fills the very object that is handed out, a string as long as all is ASCII: each further copy of
 * a large message costs more for its fresh memory than for the copying.
 */
typedef struct {
    PyObject_HEAD
    int text;
    PyObject *whole;    /* the only piece so far, just as it came, or NULL */
    PyObject *buffer;   /* ASCII string or bytes to be filled, nobody else's, or NULL */
    Py_ssize_t size;    /* bytes in it */
    Py_ssize_t capacity;
    Py_ssize_t expected; /* bytes that were announced and have not come */
} Collector;

/* Room made for what was only announced: that costs the peer nothing. More follows what came. */
#define MAX_AHEAD ((Py_ssize_t)1 << 20)

#ifndef Py_BEGIN_CRITICAL_SECTION /* before Python 3.13 the GIL does it */
#define Py_BEGIN_CRITICAL_SECTION(op) {
#define Py_END_CRITICAL_SECTION() }
#endif

static unsigned char *
bytes_of(PyObject *buffer)
{
    if (PyUnicode_Check(buffer))
        return PyUnicode_DATA(buffer);
    return (unsigned char *)PyBytes_AS_STRING(buffer);
}

/* Copy bytes, and tell whether all are ASCII. */
static int
copy_ascii(unsigned char *out, const unsigned char *in, size_t size)
{
    uint64_t words[4], seen = 0;
    unsigned char rest = 0;
    size_t i = 0;

    for (; size - i >= sizeof(words); i += sizeof(words)) {
        memcpy(words, in + i, sizeof(words));
        memcpy(out + i, words, sizeof(words));
        seen |= words[0] | words[1] | words[2] | words[3];
    }
    for (; i < size; i++)
        rest |= out[i] = in[i];
    return !(seen & NOT_ASCII) && !(rest & 0x80);
}

static void
Collector_clear(Collector *self)
{
    Py_CLEAR(self->whole);
    Py_CLEAR(self->buffer);
    self->size = self->capacity = self->expected = 0;
}

/* Change the capacity of the buffer, if there is one. Returns -1 with an exception, else 0. */
static int
resize_buffer(Collector *self, Py_ssize_t capacity)
{
    int failed = PyUnicode_Check(self->buffer) ? PyUnicode_Resize(&self->buffer, capacity)
                                               : _PyBytes_Resize(&self->buffer, capacity);

    if (!failed)
        self->capacity = capacity;
    return failed;
}

/* Have the buffer hold so many bytes, and some of those to come. Returns as resize_buffer(). */
static int
make_room(Collector *self, Py_ssize_t needed)
{
    Py_ssize_t ahead = needed > MAX_AHEAD ? needed : MAX_AHEAD;

    if (needed <= self->capacity)
        return 0;
    if (ahead > self->expected)
        ahead = self->expected;
    if (self->buffer == NULL) {
        self->buffer = self->text ? PyUnicode_New(needed + ahead, 127)
                                  : PyBytes_FromStringAndSize(NULL, needed + ahead);
        if (self->buffer == NULL)
            return -1;
        self->capacity = needed + ahead;
        return 0;
    }
    /* However small the fragments are, all of them are copied but a few times. */
    if (ahead < needed / 2)
        ahead = needed / 2;
    return resize_buffer(self, needed + ahead);
}

/* Go on with bytes instead of an ASCII string, which has so many. Returns -1 with an exception, else 0. */
static int
leave_ascii(Collector *self, Py_ssize_t filled)
{
    PyObject *buffer = PyBytes_FromStringAndSize(NULL, self->capacity);

    if (buffer == NULL)
        return -1;
    memcpy(PyBytes_AS_STRING(buffer), PyUnicode_DATA(self->buffer), (size_t)filled);
    Py_SETREF(self->buffer, buffer);
    return 0;
}

/* There is room for it. Returns -1 with an exception, else whether it is ASCII text. */
static int
append_piece(Collector *self, PyObject *piece)
{
    const unsigned char *data = (const unsigned char *)PyBytes_AS_STRING(piece);
    Py_ssize_t size = PyBytes_GET_SIZE(piece), filled = self->size + size;
    int ascii = 0;

    if (self->text)
        ascii = copy_ascii(bytes_of(self->buffer) + self->size, data, (size_t)size);
    else
        memcpy(bytes_of(self->buffer) + self->size, data, (size_t)size);
    if (!ascii && PyUnicode_Check(self->buffer) && leave_ascii(self, filled) < 0)
        return -1;
    self->size = filled;
    return ascii;
}

/* Returns -1 with an exception, and in no good state, else whether it is ASCII text. */
static int
add_piece(Collector *self, PyObject *piece)
{
    Py_ssize_t size = PyBytes_GET_SIZE(piece), before = self->size;

    self->expected = self->expected > size ? self->expected - size : 0;
    if (size == 0)
        return self->text;
    if (self->whole == NULL && self->buffer == NULL && self->expected == 0) {
        self->whole = piece;
        Py_INCREF(piece);
        return self->text
            && is_ascii((const unsigned char *)PyBytes_AS_STRING(piece), (size_t)size);
    }
    if (self->whole != NULL)
        before = PyBytes_GET_SIZE(self->whole);
    if (make_room(self, before + size) < 0)
        return -1;
    if (self->whole != NULL) {
        if (append_piece(self, self->whole) < 0)
            return -1;
        Py_CLEAR(self->whole);
    }
    return append_piece(self, piece);
}

static PyObject *
take_all(Collector *self)
{
    PyObject *taken = self->whole;

    if (taken != NULL) {
        self->whole = NULL;
    } else if (self->buffer == NULL) {
        taken = PyBytes_FromStringAndSize(NULL, 0);
    } else {
        if (self->size == self->capacity || resize_buffer(self, self->size) == 0) {
            taken = self->buffer;
            self->buffer = NULL;
        }
    }
    Collector_clear(self);
    return taken;
}

PyDoc_STRVAR(expect_doc, "expect(size, /)\n--\n\nAnnounce bytes that will be added.");

static PyObject *
Collector_expect(Collector *self, PyObject *number)
{
    Py_ssize_t size = PyNumber_AsSsize_t(number, NULL);

    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    /* What is over the limit of the type makes no difference: room is not made that far ahead. */
    if (size > 0)
        self->expected = size < PY_SSIZE_T_MAX - self->expected ? self->expected + size
                                                                : PY_SSIZE_T_MAX;
    Py_END_CRITICAL_SECTION();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(add_doc, "add(piece, /)\n--\n\nAppend bytes; tell whether they are ASCII text.");

static PyObject *
Collector_add(Collector *self, PyObject *piece)
{
    int ascii;

    if (!PyBytes_CheckExact(piece)) {
        PyErr_SetString(PyExc_TypeError, "the piece must be bytes");
        return NULL;
    }
    Py_BEGIN_CRITICAL_SECTION(self);
    ascii = add_piece(self, piece);
    if (ascii < 0)
        Collector_clear(self); /* rather than to go on with a hole */
    Py_END_CRITICAL_SECTION();
    return ascii < 0 ? NULL : PyBool_FromLong(ascii);
}

PyDoc_STRVAR(take_doc, "take()\n--\n\nHand out what was added, and begin anew.");

static PyObject *
Collector_take(Collector *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result;

    Py_BEGIN_CRITICAL_SECTION(self);
    result = take_all(self);
    Py_END_CRITICAL_SECTION();
    return result;
}

static PyObject *
Collector_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"text", NULL};
    int text;
    Collector *self;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "p:Collector", keywords, &text))
        return NULL;
    self = (Collector *)type->tp_alloc(type, 0);
    if (self != NULL)
        self->text = text;
    return (PyObject *)self;
}

static void
Collector_dealloc(Collector *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Collector_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef Collector_methods[] = {
    {"add", (PyCFunction)(void (*)(void))Collector_add, METH_O, add_doc},
    {"expect", (PyCFunction)(void (*)(void))Collector_expect, METH_O, expect_doc},
    {"take", (PyCFunction)(void (*)(void))Collector_take, METH_NOARGS, take_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(Collector_doc,
"Collector(text)\n--\n\n"
"The payload of a message as it arrives in pieces; see syncws/collector.py.");

/* Functions by way of integers: ISO C has no conversion from them to objects. */
static PyType_Slot Collector_slots[] = {
    {Py_tp_doc, (char *)Collector_doc},
    {Py_tp_new, (void *)(uintptr_t)Collector_new},
    {Py_tp_dealloc, (void *)(uintptr_t)Collector_dealloc},
    {Py_tp_methods, Collector_methods},
    {0, NULL},
};

static PyType_Spec Collector_spec = {
    .name = "syncws._speedups.Collector",
    .basicsize = sizeof(Collector),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = Collector_slots,
};

static int
add_types(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &Collector_spec, NULL);

    if (type == NULL)
        return -1;
    if (PyModule_AddObject(module, "Collector", type) < 0) {
        Py_DECREF(type);
        return -1;
    }
    return 0;
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

    if (state == NULL)
        return;
    for (i = 0; i < NAME_COUNT; i++)
        Py_XDECREF(state->names[i]);
    for (i = 0; i < state->class_count; i++)
        Py_DECREF(state->classes[i]);
}

static PyMethodDef methods[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_FASTCALL, apply_mask_doc},
    {"whole_frame", (PyCFunction)(void (*)(void))whole_frame, METH_FASTCALL, whole_frame_doc},
    {"append_result", (PyCFunction)(void (*)(void))append_result, METH_FASTCALL,
     append_result_doc},
    {"know_slots", (PyCFunction)(void (*)(void))know_slots, METH_FASTCALL, know_slots_doc},
    {"message_block", (PyCFunction)(void (*)(void))message_block, METH_FASTCALL,
     message_block_doc},
    {"receive_whole", (PyCFunction)(void (*)(void))receive_whole, METH_FASTCALL, receive_whole_doc},
    {"try_send", (PyCFunction)(void (*)(void))try_send, METH_FASTCALL, try_send_doc},
    {"whole_message", (PyCFunction)(void (*)(void))whole_message, METH_FASTCALL,
     whole_message_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)(uintptr_t)intern_names},
    {Py_mod_exec, (void *)(uintptr_t)add_types},
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
